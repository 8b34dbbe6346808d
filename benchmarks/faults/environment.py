"""An environment whose calls hang, crash and return garbage, drawn from what is called.

A call is known by its episode's task and actions, so the same calls are hit in every run, whatever
runs at the same time. Some faults come once; the others at each attempt.
"""

import dataclasses
import hashlib
import math
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from eef_jax.config.fields import field
from eef_jax.envs import webshop
from eef_jax.envs.base import Env, Game, StepResult
from eef_jax.types import Message, Task

T = TypeVar("T")
Kind = Literal["hang", "crash", "garbage"]

STEPS: tuple[Any, ...] = (
    None,
    "a page",
    StepResult(observation=b"a page", reward=0.0),  # type: ignore[arg-type]
    StepResult(observation="a page" * 100_000, reward=0.0),
    StepResult(observation="a page", reward=math.nan),
    StepResult(observation="a page", reward=7.0, terminated=True),
    StepResult(observation="a page", reward=10**400),
    StepResult(observation="a page", reward=0.0, info={"seen": {1, 2}}),
    StepResult(observation="a page", reward=0.0, terminated="no"),  # type: ignore[arg-type]
)
TEXTS: tuple[Any, ...] = (None, b"a page", 7, "a page" * 100_000)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config(webshop.Config):
    """WebShop with faults."""

    hang: float = field(0.05, "share of calls that hang", at_least=0, at_most=1)
    crash: float = field(0.05, "share of calls that raise", at_least=0, at_most=1)
    garbage: float = field(0.05, "share of calls that return garbage", at_least=0, at_most=1)
    lasting: float = field(
        0.1, "share of a game's faults that come at each attempt", at_least=0, at_most=1
    )


def make(config: Config) -> Env:
    """WebShop with the faults of its config."""
    faults = Faults(
        hang=config.hang, crash=config.crash, garbage=config.garbage, lasting=config.lasting
    )
    return FaultyEnv(webshop.make(config), faults)


class Faults:
    """Draws the fault of a call.

    Attributes:
        released: hanging calls return once it is set.
        counts: for each kind, faults so far.

    Args:
        hang: share of calls that hang.
        crash: share of calls that raise.
        garbage: share of calls that return garbage.
        lasting: share of a game's faults that come at each attempt; the others come once.
        seed: of the draws.
    """

    def __init__(self, *, hang: float, crash: float, garbage: float, lasting: float, seed: int = 0):
        self.released = threading.Event()
        self._ends: dict[Kind, float] = {
            "hang": hang,
            "crash": hang + crash,
            "garbage": hang + crash + garbage,
        }
        self.counts = dict.fromkeys(self._ends, 0)
        self._lasting = lasting
        self._seed = seed
        self._met: set[object] = set()
        self._lock = threading.Lock()

    def call(
        self, key: object, function: Callable[[], T], garbage: tuple[Any, ...], *, game: bool
    ) -> T:
        """Call a function, or do to it what is drawn.

        Args:
            key: what is called.
            function: what to call where there is no fault.
            garbage: what may be returned in its place.
            game: whether a game is called, whose faults may last.
        """
        kind = self._kind(key, lasts=game and self._draw("lasting", key) < self._lasting)
        if kind == "hang":
            self.released.wait()
            raise TimeoutError("the simulator returned after all")
        if kind == "crash":
            raise RuntimeError("the simulator died\x1b[2J\nof a fault")
        if kind == "garbage":
            return garbage[int(self._draw("which", key) * len(garbage))]
        return function()

    def _kind(self, key: object, *, lasts: bool) -> Kind | None:
        drawn = self._draw("kind", key)
        kind = next((k for k, end in self._ends.items() if drawn < end), None)
        if kind is None:
            return None
        with self._lock:
            if key in self._met and not lasts:
                return None
            self._met.add(key)
            self.counts[kind] += 1
        return kind

    def _draw(self, *what: object) -> float:
        digest = hashlib.blake2b(repr((self._seed, *what)).encode("utf-8", "backslashreplace"))
        return int.from_bytes(digest.digest()[:6]) / 2**48


class FaultyEnv:
    """An environment with faults; tasks, words and everything else are the other's.

    Args:
        env: the environment as it is.
        faults: drawn for each call.
    """

    def __init__(self, env: Env, faults: Faults):
        self._env = env
        self.faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The other's: scripted experts of an environment look for it."""
        return type(self._env)

    def prompt(self, task: Task) -> tuple[Message, ...]:
        return self._ask("prompt", task.id, lambda: self._env.prompt(task), (None, "no", [1]))

    def parse(self, message: str) -> str | None:
        return self._ask("parse", message, lambda: self._env.parse(message), (7, b"x", ["go"]))

    def invalid(self, message: str) -> str:
        return self._ask("invalid", message, lambda: self._env.invalid(message), TEXTS)

    def is_win(self, reward: float) -> bool:
        return self._ask("is_win", reward, lambda: self._env.is_win(reward), (None, "won", 1))

    def game(self) -> Game:
        return FaultyGame(self._env.game(), self.faults)

    def _ask(
        self, name: str, given: object, function: Callable[[], T], garbage: tuple[Any, ...]
    ) -> T:
        if threading.current_thread() is threading.main_thread():
            return function()  # of an expert or a check, not of the rollout loop
        return self.faults.call((name, given), function, garbage, game=False)


class FaultyGame:
    """A game with faults.

    Args:
        game: the game as it is.
        faults: drawn for each call.
    """

    def __init__(self, game: Game, faults: Faults):
        self._game = game
        self._faults = faults
        self._done: tuple[str, ...] = ()

    def reset(self, task: Task) -> str:
        self._done = (task.id,)
        return self._call(lambda: self._game.reset(task), TEXTS)

    def step(self, action: str) -> StepResult:
        self._done += (action,)
        return self._call(lambda: self._game.step(action), STEPS)

    def save(self) -> Any:
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._game.close()

    def _call(self, function: Callable[[], T], garbage: tuple[Any, ...]) -> T:
        return self._faults.call(self._done, function, garbage, game=True)
