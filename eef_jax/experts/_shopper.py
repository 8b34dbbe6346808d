"""What WebShop's scripted experts share: the pages that they read, and the policy that asks them.

A shopper has the shop open in a window of its own, and does there what was done in the episode. So
it reads the same pages whatever prompt and observation mode the agent has, and acts alike. It reads
what stands on those pages, never the goal behind them.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eef_jax.envs.base import Env
from eef_jax.envs.webshop import WebShop
from eef_jax.envs.webshop.game import ShopGame, parse_action
from eef_jax.envs.webshop.pages import Node, OptionButton, PageKind, ProductLink, clickables
from eef_jax.envs.webshop.splits import SPLITS
from eef_jax.envs.webshop.views import View
from eef_jax.errors import ConfigError, PolicyError
from eef_jax.types import ChatRequest, Completion, Task


class Listing(NamedTuple):
    """A line of a results page.

    Attributes:
        asin: the product's id, in lower case.
        title: its title.
        price: the lowest price on its tag, in dollars.
    """

    asin: str
    title: str
    price: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """A page as a shopper reads it.

    Attributes:
        kind: which page it is.
        instruction: what is to be bought.
        names: what can be clicked.
        results: lines of a results page.
        options: groups of options on an item page, each with its values.
        texts: what else stands on the page.
    """

    kind: PageKind
    instruction: str
    names: frozenset[str]
    results: tuple[Listing, ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]
    texts: tuple[str, ...]


class Move(NamedTuple):
    """What a shopper does, and why, in its own words."""

    action: str
    thought: str


class Visit:
    """One episode in the shopper's own window.

    Attributes:
        task: id of the task.
        pages: the pages seen, the present one last.
        actions: `(verb, argument)` of what was done, one fewer than pages; `("", "")` for a message
            without an action.
    """

    def __init__(self, game: ShopGame, task: Task):
        game.reset(task)
        self.task = task.id
        self.actions: list[tuple[str, str]] = []
        self._game = game
        self.pages = [_read(game)]

    def follow(self, action: str | None) -> None:
        """Do what was done in the episode; None: nothing."""
        self.actions.append((action and parse_action(action)) or ("", ""))
        if action is not None:
            self._game.step(action)
        self.pages.append(_read(self._game))


class Shopper:
    """A scripted expert as a policy (see `eef_jax.policies.base.Policy`).

    Args:
        decide: returns the next move of a visit. It runs in the event loop, so it must be fast.
        env: the shop.
        name: the expert's name in trajectories.

    Raises:
        ConfigError: the environment is not WebShop.
    """

    tokenizer = ""
    concurrency = 64

    def __init__(self, decide: Callable[[Visit], Move], env: Env, *, name: str):
        if not isinstance(env, WebShop):
            raise ConfigError(
                f"a scripted shopper (expert.name) plays webshop only, and env.name is {env.name}: "
                "choose another expert, or give a file (expert.trajectories)"
            )
        self.name = name
        self._decide = decide
        self._env = env
        self._visits: dict[str, Visit] = {}  # by episode
        self._tasks: dict[str, Task] = {}

    async def act(self, request: ChatRequest) -> Completion:
        """Answer with the next move.

        Raises:
            PolicyError: the task is not one of the shop's.
        """
        visit = self._visits.get(request.episode)
        if visit is None:
            visit = self._visits[request.episode] = Visit(self._game(), self._task(request.task))
        replies = request.messages[-2 * request.turn :: 2] if request.turn else ()
        for reply in replies[len(visit.actions) :]:
            visit.follow(self._env.parse(reply.content))
        move = self._decide(visit)
        return Completion(text=self._env.render(move.action, move.thought))

    def finish(self, episode: str) -> None:
        """Close the episode's window."""
        self._visits.pop(episode, None)

    def spent(self) -> dict[str, float]:
        """Return no costs: a script is free."""
        return {}

    async def close(self) -> None:
        """Do nothing: the shop belongs to the environment."""

    def _task(self, name: str) -> Task:
        if not self._tasks:
            self._tasks = {task.id: task for split in SPLITS for task in self._env.tasks(split)}
        if name not in self._tasks:
            raise PolicyError(f"expert {self.name!r} does not know task {name!r}")
        return self._tasks[name]

    def _game(self) -> ShopGame:
        shop = self._env.shop
        view = dataclasses.replace(
            shop.view, observation_mode=View.TEXT, num_prev_obs=0, num_prev_actions=0
        )
        return ShopGame(dataclasses.replace(shop, view=view, prefix="", listing=""))


def _read(game: ShopGame) -> PageView:
    nodes, kind = game.nodes(), game.page.kind
    return PageView(
        kind=kind,
        # "Instruction: " and the instruction are the first two nodes, after the first page's name.
        instruction=nodes[2 if kind is PageKind.INDEX else 1].text,
        names=frozenset(clickables(nodes)),
        results=tuple(
            _listing(nodes[place : place + 3])
            for place, node in enumerate(nodes)
            if isinstance(node.target, ProductLink)
        ),
        options=_options(nodes),
        texts=tuple(node.text for node in nodes[2:] if node.target is None),
    )


def _listing(nodes: Sequence[Node]) -> Listing:
    asin, title, price = nodes
    dollars = re.search(r"[\d.]+", price.text)
    return Listing(asin.text.lower(), title.text, float(dollars[0]) if dollars else 0.0)


def _options(nodes: Sequence[Node]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    groups: dict[str, list[str]] = {}
    for text, target in nodes:
        if isinstance(target, OptionButton):
            groups.setdefault(target.group, []).append(text)
    return tuple((group, tuple(values)) for group, values in groups.items())
