"""Episodes over a pool of simulators that cannot be saved: lists of actions, played again at need.

A game is its task, its actions and a fingerprint of what each of them showed. It holds no JVM: each
step takes the seat that stands in the game's state, or brings another one there by replay. So any
number of games lives over few JVMs, a fork is a copy of the list, and a JVM that dies costs nothing
but the replay. A replay that shows anything else than before is an error of its own kind, never
silently another episode. Knows actions, texts and scores, no particular simulator.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from eef_jax.envs.base import StepResult
from eef_jax.errors import DivergedError, EnvError
from eef_jax.jvm.pool import Pool, Seat
from eef_jax.jvm.process import JvmLost
from eef_jax.types import Task

ATTEMPTS = 3  # JVMs that a call may lose before the episode is given up
OVER = "The task is over."

Convention = Literal["final", "best"]
CONVENTIONS: tuple[Convention, ...] = ("final", "best")

T = TypeVar("T")


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


class Game:
    """One episode (see `eef_jax.envs.base.Game`).

    Args:
        pool: the simulators that all games of an environment share.
        convention: which score is the reward: `final`, the score when the episode ends, or `best`,
            its running maximum. A step pays the difference to what was paid before, so with `final`
            a failure takes back what was earned.
    """

    def __init__(self, pool: Pool[World], *, convention: Convention):
        self._pool = pool
        self._convention = convention
        self._state = State()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the first observation and the one after each action; an exact replay has the same."""
        return self._state.prints

    def reset(self, task: Task) -> str:
        """Start a task and return its first observation.

        Raises:
            EnvError: the task is not one of this environment's, or no JVM stays alive.
        """
        self.close()
        observation, self._state = self._play(State(task=task), _first)
        return observation

    def step(self, action: str) -> StepResult:
        """Do an action; after the end nothing is done any more, whatever it says.

        Raises:
            DivergedError: the episode had to be played again and did not come out the same.
            EnvError: the simulator failed, or no JVM stays alive.
        """
        return self.replay([action])[0]

    def replay(self, actions: Sequence[str]) -> list[StepResult]:
        """Do actions one after the other, up to the task's end, in one seat."""
        state = self._state
        if state.task is None:
            raise EnvError("a game was stepped before its first reset; call reset(task)")
        if state.over or not actions:
            return [_over() for _ in actions[:1]]
        results, self._state = self._play(
            state, lambda world, state: self._steps(world, state, actions)
        )
        return results

    def admissible(self) -> list[str]:
        """Actions that are possible now."""
        if self._state.task is None or self._state.over:
            return []
        return self._play(self._state, lambda world, state: (world.admissible(), state))[0]

    def save(self) -> State:
        """The episode so far: O(1), and of the size of its actions."""
        return self._state

    def restore(self, state: State) -> None:
        """Go to a saved state; the simulator follows with the next step, by replay."""
        self._state = state

    def close(self) -> None:
        """Forget the episode; its simulator becomes free for others."""
        self._state = State()

    def _steps(
        self, world: World, state: State, actions: Sequence[str]
    ) -> tuple[list[StepResult], State]:
        results: list[StepResult] = []
        for action in actions:
            if state.over:
                break
            observation = world.act(action)
            state, result = self._after(state, action, observation, world.read())
            results.append(result)
        return results, state

    def _after(
        self, before: State, action: str, observation: str, reading: Reading
    ) -> tuple[State, StepResult]:
        """The state after an action, and what it paid."""
        final = max(reading.score, 0.0)
        state = dataclasses.replace(
            before,
            actions=(*before.actions, action),
            prints=(*before.prints, fingerprint(observation)),
            final=final,
            best=max(before.best, final),
            over=reading.terminated or reading.truncated,
        )
        rewards = {"final": state.final, "best": state.best}
        result = StepResult(
            observation=observation,
            reward=rewards[self._convention] - getattr(before, self._convention),
            terminated=reading.terminated,
            truncated=reading.truncated and not reading.terminated,
            info={"score": reading.score, "rewards": rewards, **reading.info},
        )
        return state, result

    def _play(
        self, state: State, use: Callable[[World, State], tuple[T, State]]
    ) -> tuple[T, State]:
        """Use a simulator that stands in `state`; when it is lost, another one.

        Args:
            state: where to start from; a state without fingerprints is not brought about.
            use: from the simulator and `state` to a result and the state it stands in after that.
        """
        losses: list[str] = []
        while len(losses) < ATTEMPTS:
            try:
                seat = self._pool.take(state)
            except JvmLost as error:
                losses.append(str(error))
                continue
            try:
                result, after = self._used(seat, state, use)
            except JvmLost as error:
                losses.append(str(error))
                self._pool.drop(seat)
            except BaseException:
                self._pool.give(seat, None)
                raise
            else:
                self._pool.give(seat, after)
                return result, after
        raise EnvError(f"{ATTEMPTS} JVMs were lost over one call: {'; '.join(losses)}")

    def _used(
        self, seat: Seat[World], state: State, use: Callable[[World, State], tuple[T, State]]
    ) -> tuple[T, State]:
        if state.prints and not seat.stands_in(state):
            _bring(seat.simulator, state)
            self._pool.resumed(state.cost)
        return use(seat.simulator, state)


def _first(world: World, state: State) -> tuple[str, State]:
    assert state.task is not None
    observation = world.start(state.task)
    return observation, dataclasses.replace(state, prints=(fingerprint(observation),))


def _bring(world: World, state: State) -> None:
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


def _over() -> StepResult:
    return StepResult(observation=OVER, reward=0.0, terminated=True, info={"valid": False})
