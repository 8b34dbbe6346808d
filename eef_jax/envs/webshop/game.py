"""The shop as a game: transitions between pages, and the purchase that ends it.

All games of a process share one `Shop`; each holds one immutable `ShopState`, so saving and
restoring are O(1), and a live game costs little more than its last observation.

What the original does otherwise, and why it is not done here, is listed in docs/webshop.md.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence

from eef_jax.envs.base import StepResult, observation_fingerprint
from eef_jax.envs.webshop import history, pages
from eef_jax.envs.webshop.goals import Goal, with_bound
from eef_jax.envs.webshop.history import History
from eef_jax.envs.webshop.pages import (
    ClickTarget,
    Node,
    OptionButton,
    Page,
    PageKind,
    ProductLink,
    SubPage,
)
from eef_jax.envs.webshop.shop import Shop
from eef_jax.envs.webshop.views import page_url, render_page
from eef_jax.errors import EnvError
from eef_jax.types import Task

HOME = Page()
SHOP_CLOSED = "The purchase is made; the shop is closed."
_ACTION = re.compile(r"(.+)\[(.+)\]")
_VERBS = frozenset({"search", "click"})


def parse_action(action: str) -> tuple[str, str] | None:
    """`("click", "Buy Now")` of `"click[Buy Now]"`; None where `action` is not of the grammar.

    The grammar is `search[words]` or `click[name]`, from the start of the text; what follows the
    last `]` of the line is ignored.
    """
    match = _ACTION.match(action)
    if match is None or match[1] not in _VERBS:
        return None
    return match[1], match[2]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShopState:
    """The state of an episode, which `ShopGame.save` returns. Immutable, so games may share it.

    Attributes:
        goal: the product to buy; None before the first reset.
        session: id of the session, part of the URLs.
        page: the present page.
        observation: the last observation.
        past: earlier observations and actions that are repeated in observations.
    """

    goal: Goal | None = None
    session: str = ""
    page: Page = HOME
    observation: str = ""
    past: History = history.EMPTY


class ShopGame:
    """One episode (see `eef_jax.envs.base.Game`); `shop` is shared by all games."""

    def __init__(self, shop: Shop):
        self._shop = shop
        self._state = ShopState()
        self._page_nodes: list[Node] | None = None  # of the present page, made on first use

    @property
    def page(self) -> Page:
        """The present page."""
        return self._state.page

    @property
    def url(self) -> str:
        """The original's address of the page."""
        return page_url(self._state.page, self._state.session, self._shop.products)

    @property
    def fingerprint(self) -> str:
        """Hash of the last observation; an exact replay has the same one at each step."""
        return observation_fingerprint(self._state.observation)

    def nodes(self) -> list[Node]:
        """Nodes of the present page."""
        if self._page_nodes is None:
            goal = self._state.goal
            self._page_nodes = self._shop.nodes(self._state.page, goal) if goal else []
        return self._page_nodes

    def clickables(self) -> list[str]:
        """Names that can be clicked now, in page order."""
        return list(self._targets())

    def admissible(self) -> list[str]:
        """Actions that have an effect now; `search[words]` represents all searches."""
        return admissible(self._state.page, self.nodes())

    def reset(self, task: Task) -> str:
        """Open the shop's first page for a task's goal.

        Raises:
            EnvError: the task is not one of this shop's.
        """
        goals = self._shop.dataset.goals
        try:
            payload = json.loads(task.payload)
            number = payload["goal"]
            goal = goals[range(len(goals)).index(number)]
            if "price_upper" in payload:  # an imported task: the bound that its expert was told
                goal = with_bound(goal, payload["price_upper"])
        except (ValueError, KeyError, TypeError) as error:
            raise EnvError(
                f"task {task.id!r} has payload {task.payload!r}, expected a JSON object with "
                f"a goal below {len(goals)}; was the task made from another catalogue?"
            ) from error
        if goal.instruction != task.goal:
            raise EnvError(
                f"task {task.id!r} is {task.goal!r}, but goal {number} of this catalogue is "
                f"{goal.instruction!r}: was the task made from another catalogue?"
            )
        return self.start(goal, session=str(number))

    def start(self, goal: Goal, *, session: str) -> str:
        """Open the shop's first page for a goal, in a session of that id."""
        self._set_state(ShopState(goal=goal, session=session))
        return self._show(goal, HOME, None)

    def step(self, action: str) -> StepResult:
        """Do `search[words]` or `click[name]`.

        An action that the page does not allow has no effect. `info` holds `valid`, and after a
        purchase `reward_parts`. The done page shows the reward, as the original's does, after the
        last message of the agent.

        Raises:
            EnvError: the game was not reset, or the goal is one that the reward cannot judge.
        """
        state, goal = self._state, self._state.goal
        if goal is None:
            raise EnvError("a webshop game was stepped before its first reset; call reset(task)")
        if state.page.kind is PageKind.DONE:
            return StepResult(
                observation=SHOP_CLOSED, reward=0.0, terminated=True, info={"valid": False}
            )
        page = self._follow(action)
        info: dict[str, object] = {"valid": page is not None}
        if page is None:
            page = state.page
        elif page.kind is PageKind.DONE:
            verdict = self._shop.reward(state.page, goal)
            page = dataclasses.replace(page, reward=verdict.total)
            info["reward_parts"] = dataclasses.asdict(verdict)
        return StepResult(
            observation=self._show(goal, page, action),
            reward=page.reward,
            terminated=page.kind is PageKind.DONE,
            info=info,
        )

    def save(self) -> ShopState:
        """Return the state: one immutable value, whatever the size of the catalogue."""
        return self._state

    def restore(self, state: ShopState) -> None:
        """Go back to a saved state of any game of the same shop."""
        self._set_state(state)

    def close(self) -> None:
        """Drop the episode; the shared shop stays open."""
        self._set_state(ShopState())

    def _set_state(self, state: ShopState) -> None:
        self._state, self._page_nodes = state, None

    def _targets(self) -> pages.Clickables:
        return pages.clickables(self.nodes())

    def _show(self, goal: Goal, page: Page, action: str | None) -> str:
        """Show a page that an action (None: a reset) leads to, and return its observation."""
        shop, view, before = self._shop, self._shop.view, self._state
        if page is not before.page:
            self._page_nodes = shop.nodes(page, goal)
        text = render_page(view.observation_mode, page, self.nodes(), before.session, shop.products)
        if action is None:
            past = history.initial_history(text, observations=view.num_prev_obs)
        else:
            text, past = history.extend_history(
                before.past,
                action,
                text,
                observations=view.num_prev_obs,
                actions=view.num_prev_actions,
            )
        if shop.listing and page.kind is not PageKind.DONE:
            text += shop.listing + ", ".join(admissible(page, self.nodes()))
        self._state = ShopState(
            goal=goal,
            session=before.session,
            page=page,
            observation=shop.prefix + text,
            past=past,
        )
        return self._state.observation

    def _follow(self, action: str) -> Page | None:
        """The page that `action` leads to; None where the present page does not allow it."""
        parts = parse_action(action)
        if parts is None:
            return None
        page, verb, argument = self._state.page, parts[0], parts[1].lower()
        if verb == "search":  # allowed on every page, search bar or not
            return Page(kind=PageKind.RESULTS, query=argument, opened=page.opened)
        target = self._targets().get(argument)
        if target is None or argument == pages.SEARCH:
            return None
        return page_after_click(page, argument, target)


def admissible(page: Page, nodes: Sequence[Node]) -> list[str]:
    """Actions that have an effect on a page with these nodes.

    `search[words]` represents all searches. It is listed where there is a search bar, as in the
    original, though searches are allowed on every page.
    """
    search = ["search[words]"] if page.kind is PageKind.INDEX else []
    names = pages.clickables(nodes)
    return search + [f"click[{name}]" for name in names if name != pages.SEARCH]


def page_after_click(page: Page, name: str, target: ClickTarget) -> Page:
    """The page behind a click on `name`, which is on `page`.

    Names of buttons come first, so an option value such as `features` opens the sub page.
    """
    change = functools.partial(dataclasses.replace, page)
    results = Page(kind=PageKind.RESULTS, query=page.query, number=page.number, opened=page.opened)
    match name, page.kind:
        case pages.BUY, _:
            return change(kind=PageKind.DONE)
        case pages.BACK, _:
            return HOME
        case pages.NEXT, PageKind.RESULTS:
            return dataclasses.replace(results, number=page.number + 1)
        case pages.PREVIOUS, PageKind.RESULTS:
            return dataclasses.replace(results, number=page.number - 1)
        case pages.PREVIOUS, PageKind.SUB:
            return change(kind=PageKind.ITEM, sub=None)
        case pages.PREVIOUS, PageKind.ITEM:
            return results
    if isinstance(target, ProductLink):
        seen = page.opened if target.product in page.opened else (*page.opened, target.product)
        return change(kind=PageKind.ITEM, product=target.product, opened=seen)
    if name in set(SubPage):
        return change(kind=PageKind.SUB, sub=SubPage(name))
    assert isinstance(target, OptionButton)
    return change(options=tuple((dict(page.options) | {target.group: name}).items()))
