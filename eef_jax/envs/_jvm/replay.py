"""Restore a simulator that has no snapshots by replaying the episode's actions.

A `ReplayState` is a task, its actions and a fingerprint of each observation. `run_at_state` finds a
simulator in that state or replays the actions on another one, and retries on a new JVM if one is
lost. A replay whose observations differ raises `DivergedError` instead of continuing a different
episode.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from eef_jax.envs._jvm.pool import JvmPool
from eef_jax.envs._jvm.process import JvmLost
from eef_jax.envs._jvm.simulator import Simulator
from eef_jax.envs.base import observation_fingerprint
from eef_jax.errors import DivergedError, EnvError
from eef_jax.types import Task

MAX_LOSSES = 3  # JVMs that one call may lose before it fails

S = TypeVar("S", bound=Simulator)
T = TypeVar("T")
NewState = TypeVar("NewState", bound="ReplayState | None")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class ReplayState:
    """The complete state of an episode; `ReplayGame.save` returns it.

    Compared by identity, and the pool refers to it weakly: once the last game drops the state, its
    simulator is free for another episode.

    Attributes:
        task: the task; None before the first reset.
        actions: all actions since the start of the task.
        fingerprints: of the first observation and of the one after each action.
        final: the current score (0-1), 0 once the task has failed.
        best: the highest score so far (0-1), ETO's convention.
        over: whether the task is over; the simulator is not called any more.
    """

    task: Task | None = None
    actions: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    final: float = 0.0
    best: float = 0.0
    over: bool = False

    @property
    def replay_cost(self) -> int:
        """Number of actions to replay to restore this state."""
        return len(self.actions)


def run_at_state(
    pool: JvmPool[S], state: ReplayState, call: Callable[[S, ReplayState], tuple[T, NewState]]
) -> tuple[T, NewState]:
    """Call a function with a simulator that is in `state`; retry on another JVM if one is lost.

    Args:
        pool: the simulators.
        state: state to start from; one without fingerprints accepts a simulator in any state.
        call: maps the simulator and `state` to a result and the simulator's new state (None if
            that state cannot be restored). It is called again after the loss of a JVM.

    Returns:
        The result and the new state.

    Raises:
        DivergedError: a replay gave different observations.
        EnvError: the simulator failed, or `MAX_LOSSES` JVMs were lost.
    """
    losses: list[str] = []
    while len(losses) < MAX_LOSSES:
        try:
            entry = pool.acquire(state)
        except JvmLost as error:
            losses.append(str(error))
            continue
        try:
            if state.fingerprints and not entry.is_at(state):
                replay_to(entry.simulator, state)
                pool.count_replay(state.replay_cost)
            result, new_state = call(entry.simulator, state)
        except JvmLost as error:
            losses.append(str(error))
            pool.discard(entry)
        except BaseException:
            # The simulator may have stopped anywhere, so no state is recorded for it.
            pool.release(entry, None)
            raise
        else:
            pool.release(entry, new_state)
            return result, new_state
    raise EnvError(f"{MAX_LOSSES} JVMs were lost in one call: {'; '.join(losses)}")


def replay_to(simulator: Simulator, state: ReplayState) -> None:
    """Replay an episode's actions from the start of its task.

    Raises:
        DivergedError: an observation differs from the recorded one.
    """
    assert state.task is not None
    observation = simulator.start(state.task)
    for count, expected in enumerate(state.fingerprints):
        if count:
            observation = simulator.act(state.actions[count - 1])
        if (found := observation_fingerprint(observation)) != expected:
            raise DivergedError(
                f"a replay of task {state.task.id!r} diverged after {count} of {state.replay_cost} "
                f"actions: fingerprint {found}, expected {expected}; "
                f"the observation is {observation[:200]!r}"
            )
