"""The shop as a game: how pages follow one another, and the purchase that ends it.

A `Shop` is shared by all games of a process: products, goals, prices and the search index. A `Game`
holds one immutable `Page`, so saving and restoring are O(1). Knows nothing of prompts or tokens.

Oddities of the original that are mended here: queries are plain text (no `<r>`-like commands, and a
query that names a page does not confuse `< Prev`), and a finished game stays finished.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence

from eef_jax.envs.base import StepResult
from eef_jax.envs.webshop import pages
from eef_jax.envs.webshop.catalogue import Product
from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.goals import Goal
from eef_jax.envs.webshop.pages import Choice, Kind, Link, Page, Sub
from eef_jax.envs.webshop.reward import Reward, judge
from eef_jax.envs.webshop.search import Index
from eef_jax.errors import EnvError
from eef_jax.types import Task

CLOSED = "The purchase is made; the shop is closed."
_ACTION = re.compile(r"(.+)\[(.+)\]")
_VERBS = frozenset({"search", "click"})


def split_action(action: str) -> tuple[str, str] | None:
    """`("click", "Buy Now")` of `"click[Buy Now]"`; None where `action` is not of the grammar.

    The grammar is `search[words]` or `click[name]`, from the start of the text; what follows the
    last `]` of the line is ignored.
    """
    match = _ACTION.match(action)
    if match is None or match[1] not in _VERBS:
        return None
    return match[1], match[2]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shop:
    """What all games share; immutable but for the index's memory of past queries.

    Attributes:
        dataset: products, goals, prices and nouns.
        index: search over the products.
        show_attributes: whether item pages have an Attributes button.
        prefix: text put before every observation.
    """

    dataset: Dataset
    index: Index
    show_attributes: bool = False
    prefix: str = ""

    @property
    def products(self) -> Sequence[Product]:
        """The catalogue; pages name products by their number in it."""
        return self.dataset.products

    def hits(self, page: Page) -> Sequence[int]:
        """Products found by the query of a results page, best first."""
        return self.index.search(page.query) if page.kind is Kind.RESULTS else ()

    def observe(self, page: Page, goal: Goal) -> str:
        """Text of a page."""
        return self.prefix + pages.observe(
            page,
            goal.instruction,
            self.products,
            self.hits(page),
            show_attributes=self.show_attributes,
        )

    def clickables(self, page: Page) -> pages.Clickables:
        """What can be clicked on a page, in page order."""
        return pages.clickables(
            page, self.products, self.hits(page), show_attributes=self.show_attributes
        )

    def judge(self, page: Page, goal: Goal) -> Reward:
        """Reward of buying what an item page shows, with the options chosen there."""
        product = self.products[page.product]
        return judge(
            product,
            goal,
            price=self.dataset.prices[product.asin],
            chosen=[value for _, value in page.options],
            nouns=self.dataset.nouns,
        )


@functools.lru_cache(maxsize=4)
def index_of(dataset: Dataset) -> Index:
    """The search index of a dataset, built once in a process (about 1 s for 2,000 products)."""
    return Index(
        [product.asin for product in dataset.products],
        [product.document for product in dataset.products],
    )


class Game:
    """One episode (see `eef_jax.envs.base.Game`); `shop` is shared by all games."""

    def __init__(self, shop: Shop):
        self._shop = shop
        self._goal: Goal | None = None
        self._page = Page()

    @property
    def page(self) -> Page:
        """Where the shopper is."""
        return self._page

    def clickables(self) -> list[str]:
        """Names that can be clicked now, in page order."""
        return list(self._shop.clickables(self._page))

    def reset(self, task: Task) -> str:
        """Open the shop's first page for a task's goal.

        Raises:
            EnvError: the task is not one of this shop's.
        """
        goals = self._shop.dataset.goals
        try:
            number = json.loads(task.payload)["goal"]
            self._goal = goals[range(len(goals)).index(number)]
        except (ValueError, KeyError, TypeError) as error:
            raise EnvError(
                f"task {task.id!r} has payload {task.payload!r}, expected a JSON object with "
                f"a goal below {len(goals)}; was the task made from another catalogue?"
            ) from error
        self._page = Page()
        return self._shop.observe(self._page, self._goal)

    def step(self, action: str) -> StepResult:
        """Do `search[words]` or `click[name]`.

        What the page does not allow changes nothing. `info` holds `valid`, and after a purchase
        `reward_parts`. The done page shows the reward, as the original's does; nobody plays on
        from it.

        Raises:
            EnvError: the game was not reset.
        """
        if self._goal is None:
            raise EnvError("a webshop game was stepped before its first reset; call reset(task)")
        if self._page.kind is Kind.DONE:
            return StepResult(
                observation=CLOSED, reward=0.0, terminated=True, info={"valid": False}
            )
        page = self._follow(action)
        info: dict[str, object] = {"valid": page is not None}
        if page is not None and page.kind is Kind.DONE:
            verdict = self._shop.judge(self._page, self._goal)
            page = dataclasses.replace(page, reward=verdict.total)
            info["reward_parts"] = dataclasses.asdict(verdict)
        self._page = page or self._page
        done = self._page.kind is Kind.DONE
        return StepResult(
            observation=self._shop.observe(self._page, self._goal),
            reward=self._page.reward,
            terminated=done,
            info=info,
        )

    def save(self) -> tuple[Goal | None, Page]:
        """The game's state: two immutable values."""
        return self._goal, self._page

    def restore(self, state: tuple[Goal | None, Page]) -> None:
        """Go back to a saved state of any game of the same shop."""
        self._goal, self._page = state

    def close(self) -> None:
        """Forget the episode; what is shared stays."""
        self._goal, self._page = None, Page()

    def _follow(self, action: str) -> Page | None:
        """The page that `action` leads to; None where the present page does not allow it."""
        parts = split_action(action)
        if parts is None:
            return None
        verb, argument = parts[0], parts[1].lower()
        if verb == "search":  # allowed on every page, search bar or not
            return Page(kind=Kind.RESULTS, query=argument)
        target = self._shop.clickables(self._page).get(argument)
        if target is None or argument == pages.SEARCH:
            return None
        return turn(self._page, argument, target)


def turn(page: Page, name: str, target: pages.Button | Link | Choice) -> Page:
    """The page behind a click on `name`, which is on `page`.

    Names of buttons come first, so an option value such as `features` opens the sub page.
    """
    change = functools.partial(dataclasses.replace, page)
    results = Page(kind=Kind.RESULTS, query=page.query, number=page.number)
    match name, page.kind:
        case pages.BUY, _:
            return change(kind=Kind.DONE)
        case pages.BACK, _:
            return Page()
        case pages.NEXT, Kind.RESULTS:
            return dataclasses.replace(results, number=page.number + 1)
        case pages.PREVIOUS, Kind.RESULTS:
            return dataclasses.replace(results, number=page.number - 1)
        case pages.PREVIOUS, Kind.SUB:
            return change(kind=Kind.ITEM, sub=None)
        case pages.PREVIOUS, Kind.ITEM:
            return results
    if isinstance(target, Link):
        return change(kind=Kind.ITEM, product=target.product)
    if name in set(Sub):
        return change(kind=Kind.SUB, sub=Sub(name))
    assert isinstance(target, Choice)
    return change(options=tuple((dict(page.options) | {target.group: name}).items()))
