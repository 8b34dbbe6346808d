"""The shop as a game: how pages follow one another, and the purchase that ends it.

All games of a process share one `Shop`; each holds one immutable `State`, so saving and restoring
are O(1), and thousands of games cost what their last observations do. Knows nothing of prompts.

What the original does otherwise, and why it is not done here, is listed in docs/webshop.md.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Sequence

from eef_jax.envs.base import StepResult
from eef_jax.envs.webshop import history, pages
from eef_jax.envs.webshop.goals import Goal
from eef_jax.envs.webshop.history import History
from eef_jax.envs.webshop.pages import Choice, Kind, Link, Node, Page, Sub, Target
from eef_jax.envs.webshop.shop import Shop
from eef_jax.envs.webshop.views import url, write
from eef_jax.errors import EnvError
from eef_jax.types import Task

FIRST = Page()
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


def fingerprint(observation: str) -> str:
    """16 hex digits that stand for an observation, for logs that keep actions but not pages."""
    return hashlib.sha256(observation.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All of an episode: what `Game.save` returns. Immutable, so that games may share it.

    Attributes:
        goal: what is to be bought; None before the first reset.
        session: id of the session, which URLs name.
        page: where the shopper is.
        observation: what the agent read last.
        past: what it reads again.
    """

    goal: Goal | None = None
    session: str = ""
    page: Page = FIRST
    observation: str = ""
    past: History = history.NOTHING


class Game:
    """One episode (see `eef_jax.envs.base.Game`); `shop` is shared by all games."""

    def __init__(self, shop: Shop):
        self._shop = shop
        self._state = State()
        self._standing: list[Node] | None = None  # what the page shows; made when it is needed

    @property
    def page(self) -> Page:
        """Where the shopper is."""
        return self._state.page

    @property
    def url(self) -> str:
        """The original's address of the page."""
        return url(self._state.page, self._state.session, self._shop.products)

    @property
    def fingerprint(self) -> str:
        """What the last observation hashes to; an exact replay has the same one at each step."""
        return fingerprint(self._state.observation)

    def clickables(self) -> list[str]:
        """Names that can be clicked now, in page order."""
        return list(self._targets())

    def admissible(self) -> list[str]:
        """Actions that lead somewhere now; see the function of that name."""
        return admissible(self._state.page, self._nodes())

    def reset(self, task: Task) -> str:
        """Open the shop's first page for a task's goal.

        Raises:
            EnvError: the task is not one of this shop's.
        """
        goals = self._shop.dataset.goals
        try:
            number = json.loads(task.payload)["goal"]
            goal = goals[range(len(goals)).index(number)]
        except (ValueError, KeyError, TypeError) as error:
            raise EnvError(
                f"task {task.id!r} has payload {task.payload!r}, expected a JSON object with "
                f"a goal below {len(goals)}; was the task made from another catalogue?"
            ) from error
        return self.open(goal, session=str(number))

    def open(self, goal: Goal, *, session: str) -> str:
        """Open the shop's first page for a goal, in a session of that id."""
        self._go(State(goal=goal, session=session))
        return self._read(goal, FIRST, None)

    def step(self, action: str) -> StepResult:
        """Do `search[words]` or `click[name]`.

        What the page does not allow changes nothing. `info` holds `valid`, and after a purchase
        `reward_parts`. The done page shows the reward, as the original's does; nobody plays on
        from it.

        Raises:
            EnvError: the game was not reset, or the goal is one that the reward cannot judge.
        """
        state, goal = self._state, self._state.goal
        if goal is None:
            raise EnvError("a webshop game was stepped before its first reset; call reset(task)")
        if state.page.kind is Kind.DONE:
            return StepResult(
                observation=CLOSED, reward=0.0, terminated=True, info={"valid": False}
            )
        page = self._follow(action)
        info: dict[str, object] = {"valid": page is not None}
        if page is None:
            page = state.page
        elif page.kind is Kind.DONE:
            verdict = self._shop.judge(state.page, goal)
            page = dataclasses.replace(page, reward=verdict.total)
            info["reward_parts"] = dataclasses.asdict(verdict)
        return StepResult(
            observation=self._read(goal, page, action),
            reward=page.reward,
            terminated=page.kind is Kind.DONE,
            info=info,
        )

    def save(self) -> State:
        """The game's state: one immutable value, whatever the catalogue's size."""
        return self._state

    def restore(self, state: State) -> None:
        """Go back to a saved state of any game of the same shop."""
        self._go(state)

    def close(self) -> None:
        """Forget the episode; what is shared stays."""
        self._go(State())

    def _go(self, state: State) -> None:
        self._state, self._standing = state, None

    def _nodes(self) -> list[Node]:
        """What the present page shows."""
        if self._standing is None:
            goal = self._state.goal
            self._standing = self._shop.nodes(self._state.page, goal) if goal else []
        return self._standing

    def _targets(self) -> pages.Clickables:
        return pages.clickables(self._nodes())

    def _read(self, goal: Goal, page: Page, action: str | None) -> str:
        """Go to a page by an action, by None at a reset; returns what the agent reads there."""
        shop, look, before = self._shop, self._shop.look, self._state
        if page is not before.page:
            self._standing = shop.nodes(page, goal)
        text = write(look.observation_mode, page, self._nodes(), before.session, shop.products)
        if action is None:
            past = history.first(text, observations=look.num_prev_obs)
        else:
            text, past = history.extend(
                before.past,
                action,
                text,
                observations=look.num_prev_obs,
                actions=look.num_prev_actions,
            )
        if shop.listing and page.kind is not Kind.DONE:
            text += shop.listing + ", ".join(admissible(page, self._nodes()))
        self._state = State(
            goal=goal,
            session=before.session,
            page=page,
            observation=shop.prefix + text,
            past=past,
        )
        return self._state.observation

    def _follow(self, action: str) -> Page | None:
        """The page that `action` leads to; None where the present page does not allow it."""
        parts = split_action(action)
        if parts is None:
            return None
        page, verb, argument = self._state.page, parts[0], parts[1].lower()
        if verb == "search":  # allowed on every page, search bar or not
            return Page(kind=Kind.RESULTS, query=argument, opened=page.opened)
        target = self._targets().get(argument)
        if target is None or argument == pages.SEARCH:
            return None
        return turn(page, argument, target)


def admissible(page: Page, standing: Sequence[Node]) -> list[str]:
    """Actions that lead somewhere from a page on which those nodes stand.

    `search[words]` stands for all searches; it is told where there is a search bar, though searches
    are allowed on every page.
    """
    search = ["search[words]"] if page.kind is Kind.INDEX else []
    names = pages.clickables(standing)
    return search + [f"click[{name}]" for name in names if name != pages.SEARCH]


def turn(page: Page, name: str, target: Target) -> Page:
    """The page behind a click on `name`, which is on `page`.

    Names of buttons come first, so an option value such as `features` opens the sub page.
    """
    change = functools.partial(dataclasses.replace, page)
    results = Page(kind=Kind.RESULTS, query=page.query, number=page.number, opened=page.opened)
    match name, page.kind:
        case pages.BUY, _:
            return change(kind=Kind.DONE)
        case pages.BACK, _:
            return FIRST
        case pages.NEXT, Kind.RESULTS:
            return dataclasses.replace(results, number=page.number + 1)
        case pages.PREVIOUS, Kind.RESULTS:
            return dataclasses.replace(results, number=page.number - 1)
        case pages.PREVIOUS, Kind.SUB:
            return change(kind=Kind.ITEM, sub=None)
        case pages.PREVIOUS, Kind.ITEM:
            return results
    if isinstance(target, Link):
        seen = page.opened if target.product in page.opened else (*page.opened, target.product)
        return change(kind=Kind.ITEM, product=target.product, opened=seen)
    if name in set(Sub):
        return change(kind=Kind.SUB, sub=Sub(name))
    assert isinstance(target, Choice)
    return change(options=tuple((dict(page.options) | {target.group: name}).items()))
