"""Standing in a state: a simulator without snapshots is brought anywhere by playing actions again.

A `State` is a task, its actions and a fingerprint of what each of them showed. `use_at` finds a
simulator that stands there, or plays another one to it, and starts over on a new JVM when one is
lost. A replay that shows anything else than before is an error of its own kind, never silently
another episode. Knows actions, texts and scores, no particular simulator.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from eef_jax.envs._jvm.pool import Pool
from eef_jax.envs._jvm.process import JvmLost
from eef_jax.errors import DivergedError, EnvError
from eef_jax.types import Task

ATTEMPTS = 3  # JVMs that a call may lose before the episode is given up

W = TypeVar("W", bound="World")
T = TypeVar("T")
A = TypeVar("A", bound="State | None")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a simulator says of the state it stands in, beside the observation.

    Attributes:
        score: its own score, at most 1; below 0 where the task is failed for good.
        terminated: the task is over, won or lost.
        truncated: the simulator's own limits are reached.
        info: what else it tells, JSON values only.
    """

    score: float
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class World(Protocol):
    """A simulator in a JVM of its own: what an environment adds to this package.

    Equal tasks and actions must show equal texts in every JVM. All methods may raise `JvmLost`, and
    `EnvError` where the simulator itself fails.
    """

    @property
    def pid(self) -> int:
        """Its JVM's process id."""
        ...

    @property
    def alive(self) -> bool:
        """Whether its JVM runs."""
        ...

    def start(self, task: Task) -> str:
        """Start a task, whatever was before; returns the first observation."""
        ...

    def act(self, action: str) -> str:
        """Do an action and return what it shows. A replay calls nothing but this."""
        ...

    def read(self) -> Reading:
        """The score and so on; must not change the state."""
        ...

    def admissible(self) -> list[str]:
        """Actions that are possible now; must not change the state."""
        ...

    def close(self) -> None:
        """End the JVM; closing twice is fine."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class State:
    """All of an episode: what `Game.save` returns.

    Attributes:
        task: what is played; None before the first reset.
        actions: all actions since the task's start.
        prints: fingerprint of the first observation and of the one after each action.
        final: the score now, 0 where the task is failed.
        best: the highest score so far, as ETO counts.
        over: whether the task is over; its simulator is not asked any more.
    """

    task: Task | None = None
    actions: tuple[str, ...] = ()
    prints: tuple[str, ...] = ()
    final: float = 0.0
    best: float = 0.0
    over: bool = False

    @property
    def cost(self) -> int:
        """Number of actions to play again to come back here."""
        return len(self.actions)


def fingerprint(observation: str) -> str:
    """16 hex digits that stand for an observation."""
    return hashlib.sha256(observation.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def use_at(pool: Pool[W], state: State, use: Callable[[W, State], tuple[T, A]]) -> tuple[T, A]:
    """Use a simulator that stands in `state`; when its JVM is lost, another one.

    Args:
        pool: where simulators sit.
        state: where to start from; one without fingerprints may be anywhere.
        use: from the simulator and `state` to a result and the state it stands in after that (None:
            in none that can be come back to). It is called again when a JVM is lost.

    Returns:
        What `use` returned.

    Raises:
        DivergedError: a replay did not come out as before.
        EnvError: the simulator failed, or `ATTEMPTS` JVMs were lost.
    """
    losses: list[str] = []
    while len(losses) < ATTEMPTS:
        try:
            seat = pool.take(state)
        except JvmLost as error:
            losses.append(str(error))
            continue
        try:
            if state.prints and not seat.stands_in(state):
                bring(seat.simulator, state)
                pool.resumed(state.cost)
            result, after = use(seat.simulator, state)
        except JvmLost as error:
            losses.append(str(error))
            pool.drop(seat)
        except BaseException:
            pool.give(seat, None)
            raise
        else:
            pool.give(seat, after)
            return result, after
    raise EnvError(f"{ATTEMPTS} JVMs were lost over one call: {'; '.join(losses)}")


def bring(world: World, state: State) -> None:
    """Play an episode again.

    Raises:
        DivergedError: something else was shown than before.
    """
    assert state.task is not None
    shown = world.start(state.task)
    for place, before in enumerate(state.prints):
        if place:
            shown = world.act(state.actions[place - 1])
        if fingerprint(shown) != before:
            raise DivergedError(
                f"a replay of task {state.task.id!r} came out differently after "
                f"{place} of {state.cost} actions: fingerprint {fingerprint(shown)}, was {before}; "
                f"it shows {shown[:200]!r}"
            )
