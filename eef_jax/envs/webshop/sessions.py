"""The interface of the original: sessions that keep their goals, `reset(session)`, `step(action)`.

A `Site` is what the original calls a server: it serves a choice of the goals and remembers which
session has which. A `TextEnv` visits it as one shopper after the other. This is for people who know
the original, and for the Gymnasium wrapper; EEF plays tasks (`eef_jax.envs.base.Env`), which name
their goal themselves.
"""

import itertools
import random
import string
from typing import TypedDict

from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.game import ShopGame
from eef_jax.envs.webshop.goal_filter import (
    NO_LIMIT,
    GoalFilter,
    goal_weights,
    sample_index,
    select_goals,
)
from eef_jax.envs.webshop.goals import Goal
from eef_jax.envs.webshop.pages import PageKind
from eef_jax.envs.webshop.shop import Shop
from eef_jax.errors import EnvError

Info = dict[str, object]


class Available(TypedDict):
    """What can be done on a page: whether it has a search bar, and the names to click."""

    has_search_bar: bool
    clickables: list[str]


class Site:
    """A choice of a dataset's goals, and the sessions that were opened for them.

    Args:
        dataset: the goals.
        filter_goals: which goals are served, by number and goal; None: all.
        limit_goals: how many of them are drawn (see `select_goals`); -1: all.

    Raises:
        ConfigError: the limit is neither positive nor -1.
        DataError: no goal is left.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        filter_goals: GoalFilter | None = None,
        limit_goals: int = NO_LIMIT,
    ):
        self._goals = dataset.goals
        self._numbers = select_goals(dataset.goals, keep=filter_goals, limit=limit_goals)
        self._bounds: list[float] = []
        self._sessions: dict[str, int] = {}

    def __len__(self) -> int:
        """How many goals are served."""
        return len(self._numbers)

    def goal(self, place: int) -> Goal:
        """The goal at a place among those that are served."""
        return self._goals[self._numbers[place]]

    def place(self, session: str, wanted: int | None, rng: random.Random) -> int:
        """Place among the served goals of a session's goal; a session that is known keeps its goal.

        Args:
            session: id of the session.
            wanted: the goal of a new session, counted from the end where it is negative; None: one
                is drawn.
            rng: for that draw.

        Raises:
            EnvError: there is no such goal.
        """
        if session not in self._sessions:
            count = len(self)
            if wanted is not None and not -count <= wanted < count:
                raise EnvError(
                    f"session {wanted} names no goal: this site serves {count} goals; give a "
                    f"number from {-count} to {count - 1}, a string, or None"
                )
            place = self._draw(rng) if wanted is None else wanted
            self._sessions[session] = place % count
        return self._sessions[session]

    def forget(self) -> None:
        """Forget all sessions, as a new site would."""
        self._sessions.clear()

    def _draw(self, rng: random.Random) -> int:
        if not self._bounds:
            weight = goal_weights(self._goals)
            self._bounds = list(itertools.accumulate(weight[number] for number in self._numbers))
        return sample_index(self._bounds, rng)


class TextEnv:
    """A shopper at a site, with the original's `WebAgentTextEnv` methods.

    Args:
        site: the site; shoppers may share one.
        shop: where they shop, of the same dataset, and how its pages look.
        session_prefix: put before the id of every session.
        rng: names sessions without a name and draws their goals; None: one seeded by the system.
            After `random.seed(n)` the original does what `random.Random(n)` does here.
    """

    def __init__(
        self,
        site: Site,
        shop: Shop,
        *,
        session_prefix: str = "",
        rng: random.Random | None = None,
    ):
        self.site = site
        self.session = ""
        self.instruction_text = ""
        self.goal = 0  # place of the goal among those that the site serves
        self.rng = rng or random.Random()
        self._prefix = session_prefix
        self._game = ShopGame(shop)

    def reset(
        self, session: int | str | None = None, instruction_text: str | None = None
    ) -> tuple[str, None]:
        """Open the first page in a session.

        Args:
            session: a number names the session and the goal of that place (negative ones count from
                the end); a string only names the session, and a new one draws its goal; None draws
                a name too. A session that was seen before keeps the goal it had.
            instruction_text: what `instruction_text` is to say; pages and goal stay as they are.

        Returns:
            The page's text, and None.

        Raises:
            EnvError: there is no goal of that number.
        """
        if session is None:
            session = "".join(self.rng.choices(string.ascii_lowercase, k=10))
        name = f"{self._prefix}{session}"
        number = session if isinstance(session, int) else None
        self.goal = self.site.place(name, number, self.rng)
        self.session = name
        goal = self.site.goal(self.goal)
        text = self._game.start(goal, session=self.session)
        self.instruction_text = (
            f"Instruction: {goal.instruction}" if instruction_text is None else instruction_text
        )
        return text, None

    def step(self, action: str) -> tuple[str, float, bool, Info]:
        """Do `search[words]` or `click[name]`; what the page does not allow does nothing.

        Returns:
            The page's text (with the history that the shop asks for), the reward (0-1, at a
            purchase), whether a purchase ended the episode, and `StepResult.info`.

        Raises:
            EnvError: the environment was not reset.
        """
        result = self._game.step(action)
        return result.observation, result.reward, result.terminated, dict(result.info)

    def get_available_actions(self) -> Available:
        """What can be done now; `click[search]` is named, as in the original, and does nothing."""
        return {
            "has_search_bar": bool(self.session) and self._game.page.kind is PageKind.INDEX,
            "clickables": self._game.clickables(),
        }

    @property
    def url(self) -> str:
        """The page's address in the original."""
        return self._game.url

    @property
    def fingerprint(self) -> str:
        """What the last observation hashes to."""
        return self._game.fingerprint
