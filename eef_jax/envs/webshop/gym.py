"""WebShop as a Gymnasium environment, for people who want only the environment.

    import gymnasium
    import eef_jax.envs.webshop.gym  # registers it

    env = gymnasium.make("eef_jax/WebShop-v0", data_dir="webshop_1k", max_episode_steps=15)
    page, info = env.reset(seed=0)
    page, reward, terminated, truncated, info = env.step("search[red shoes]")

Needs the extra `gym`; nothing else in the package imports this file.
"""

import dataclasses
import functools
import json
import random
from typing import Any

from eef_jax.envs import webshop
from eef_jax.envs.webshop.goal_filter import NO_LIMIT, GoalFilter
from eef_jax.envs.webshop.sessions import Info, Site, TextEnv
from eef_jax.envs.webshop.shop import Shop
from eef_jax.envs.webshop.views import view_options
from eef_jax.errors import ConfigError, did_you_mean

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise ConfigError(
        "eef_jax.envs.webshop.gym needs gymnasium, which is not installed: pip install -e '.[gym]'"
    ) from error

ID = "eef_jax/WebShop-v0"
DATA = (
    "data_dir",
    "products",
    "attributes",
    "human_instructions",
    "title_nouns",
    "max_products",
    "seed",
)
OPTIONS = ("session", "instruction_text")


class AnyText(spaces.Space[str]):
    """All texts; samples are a few letters.

    `spaces.Text` holds texts of a fixed set of characters and of a bounded length; shops' texts use
    all of Unicode and have no bound.

    Args:
        seed: of the samples.
    """

    def __init__(self, seed: int | None = None):
        super().__init__(dtype=str, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Texts are not arrays."""
        return False

    def sample(self, mask: None = None, probability: None = None) -> str:
        """A word of up to 16 letters, which as an action does nothing."""
        letters = self.np_random.integers(ord("a"), ord("z") + 1, self.np_random.integers(1, 17))
        return "".join(map(chr, letters))

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    def __repr__(self) -> str:
        return "AnyText()"


class WebShopEnv(gymnasium.Env[str, str]):
    """Buy, in a text shop, the product that an instruction describes.

    Actions are texts, `search[words]` or `click[name]`; what a page does not allow does nothing.
    Observations are pages as text. The reward is 0 until a purchase, which pays 0-1 and terminates;
    nothing is truncated but by `max_episode_steps` of `gymnasium.make`.

    `info` always holds `session`, `goal` (its place among those played), `instruction_text`, `url`,
    `fingerprint`, and `available_actions` (`has_search_bar`, `clickables`); after a step `valid`
    (whether the action did anything); after a purchase `reward_parts`, `score` (the reward) and
    `won` (reward 1.0).

    Args:
        observation_mode: `text`, `text_rich` or `url`.
        show_attrs: whether item pages have an Attributes button.
        num_prev_obs: number of earlier observations prepended to each observation.
        num_prev_actions: number of earlier actions prepended to each observation.
        filter_goals: which goals are played, by number and `Goal`; None: all.
        limit_goals: how many of them are drawn; -1: all.
        session_prefix: put before the id of every session.
        render_mode: `ansi` (`render` gives the page's text) or None.
        data: what decides the shop, as `eef_jax.envs.webshop.make` takes it: `data_dir`, or
            `products`, `attributes`, `human_instructions`, `title_nouns`, `max_products` and
            `seed`; nothing for the embedded catalogue. Environments of equal data share one shop.

    Raises:
        ConfigError: an argument is not known or not allowed.
        DataError: a file is missing or damaged, or no goal is left.
    """

    # Pages have no clock; Gymnasium wants a rate of whatever can be rendered.
    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - the base declares it so

    def __init__(
        self,
        *,
        observation_mode: str = "text",
        show_attrs: bool = False,
        num_prev_obs: int = 0,
        num_prev_actions: int = 0,
        filter_goals: GoalFilter | None = None,
        limit_goals: int = NO_LIMIT,
        session_prefix: str = "",
        render_mode: str | None = None,
        **data: str | int,
    ):
        if render_mode not in (None, "ansi"):
            raise ConfigError(f"unknown render_mode {render_mode!r} of {ID}; known: ansi, None")
        for name in data:
            if name not in DATA:
                raise ConfigError(f"unknown argument {name!r} of {ID}; {did_you_mean(name, DATA)}")
        self.render_mode = render_mode
        self.observation_space = AnyText()
        self.action_space = AnyText()
        shop = dataclasses.replace(
            _shop(json.dumps(data, sort_keys=True, default=str)),
            view=view_options(
                show_attrs=show_attrs,
                observation_mode=observation_mode,
                num_prev_obs=num_prev_obs,
                num_prev_actions=num_prev_actions,
            ),
        )
        self._site = Site(shop.dataset, filter_goals=filter_goals, limit_goals=limit_goals)
        self._env = TextEnv(self._site, shop, session_prefix=session_prefix)
        self._page = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Open the first page in a session.

        Args:
            seed: names the sessions that are drawn from here on, as `random.seed(seed)` does for
                the original, and forgets all sessions; None: go on.
            options: `session`: a number names the goal of that place, a string a session that keeps
                its goal, None (or nothing) draws; `instruction_text`: what `info` says instead.

        Raises:
            ConfigError: an option is not known.
            EnvError: there is no goal of that number.
        """
        super().reset(seed=seed)
        asked = options or {}
        for name in asked:
            if name not in OPTIONS:
                raise ConfigError(
                    f"unknown reset option {name!r} of {ID}; {did_you_mean(name, OPTIONS)}"
                )
        if seed is not None:
            self._env.rng = random.Random(seed)
            self._site.forget()
        self._page, _ = self._env.reset(asked.get("session"), asked.get("instruction_text"))
        return self._page, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Do `search[words]` or `click[name]`; see the class."""
        self._page, reward, terminated, said = self._env.step(action)
        info = self._info() | said
        if "reward_parts" in said:
            info |= {"score": reward, "won": reward >= 1.0}
        return self._page, reward, terminated, False, info

    def render(self) -> str | None:
        """The page's text, in mode `ansi`."""
        return self._page if self.render_mode == "ansi" else None

    def _info(self) -> Info:
        return {
            "session": self._env.session,
            "goal": self._env.goal,
            "instruction_text": self._env.instruction_text,
            "url": self._env.url,
            "fingerprint": self._env.fingerprint,
            "available_actions": self._env.get_available_actions(),
        }


@functools.lru_cache(maxsize=4)
def _shop(data: str) -> Shop:
    """The shop of some data (fields of `webshop.Config` as JSON), made once in a process."""
    return webshop.make(webshop.Config(**json.loads(data))).shop


gymnasium.register(ID, entry_point=f"{__name__}:{WebShopEnv.__name__}")
