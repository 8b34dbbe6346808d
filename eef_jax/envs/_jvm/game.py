"""Episodes over a pool of simulators without snapshots: action lists, replayed when needed.

A game holds no JVM. Each step takes the simulator that is in the game's state, or brings another
one there by replay. So any number of games runs on a few JVMs, a fork is a copy of the action list,
and a JVM that dies costs only the replay.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from eef_jax.envs._jvm.pool import JvmPool
from eef_jax.envs._jvm.replay import ReplayState, run_at_state
from eef_jax.envs._jvm.simulator import Simulator, SimulatorStatus
from eef_jax.envs.base import StepResult, observation_fingerprint
from eef_jax.errors import EnvError
from eef_jax.types import Task

EPISODE_OVER = "The task is over."

RewardConvention = Literal["final", "best"]


class ReplayGame:
    """One episode; implements `eef_jax.envs.base.Game`.

    Args:
        pool: the simulators, shared by all games of an environment.
        convention: the score used as reward: `final`, the score at the end of the episode, or
            `best`, its running maximum. A step pays the increase since the previous step, so with
            `final` a failure takes back what was earned.
    """

    def __init__(self, pool: JvmPool[Simulator], *, convention: RewardConvention):
        self._pool = pool
        self._convention = convention
        self._state = ReplayState()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Fingerprints of all observations so far; an exact replay has the same ones."""
        return self._state.fingerprints

    def reset(self, task: Task) -> str:
        """Start a task and return its first observation.

        Raises:
            EnvError: the task belongs to another environment, or no JVM stays alive.
        """
        self.close()
        observation, self._state = run_at_state(self._pool, ReplayState(task=task), _start)
        return observation

    def step(self, action: str) -> StepResult:
        """Perform an action; after the end of the episode, do nothing.

        Raises:
            DivergedError: the episode had to be replayed and its observations differ.
            EnvError: the simulator failed, or no JVM stays alive.
        """
        return self.replay([action])[0]

    def replay(self, actions: Sequence[str]) -> list[StepResult]:
        """Perform actions up to the end of the task, all on one simulator."""
        state = self._state
        if state.task is None:
            raise EnvError("a game was stepped before its first reset; call reset(task)")
        if state.over or not actions:
            return [_after_end() for _ in actions[:1]]
        results, self._state = run_at_state(
            self._pool, state, lambda simulator, state: self._run(simulator, state, actions)
        )
        return results

    def admissible(self) -> list[str]:
        """Return the actions that are possible now."""
        if self._state.task is None or self._state.over:
            return []
        return run_at_state(
            self._pool, self._state, lambda simulator, state: (simulator.admissible(), state)
        )[0]

    def save(self) -> ReplayState:
        """Return the episode so far in O(1); its size is that of its actions."""
        return self._state

    def restore(self, state: ReplayState) -> None:
        """Go to a saved state; the next step replays it if no simulator is there."""
        self._state = state

    def close(self) -> None:
        """Drop the episode; its simulator becomes free for others."""
        self._state = ReplayState()

    def _run(
        self, simulator: Simulator, state: ReplayState, actions: Sequence[str]
    ) -> tuple[list[StepResult], ReplayState]:
        results: list[StepResult] = []
        for action in actions:
            if state.over:
                break
            observation = simulator.act(action)
            state, result = self._advance(state, action, observation, simulator.status())
            results.append(result)
        return results, state

    def _advance(
        self, before: ReplayState, action: str, observation: str, status: SimulatorStatus
    ) -> tuple[ReplayState, StepResult]:
        """Return the state after an action, and the step's result."""
        final = max(status.score, 0.0)
        state = dataclasses.replace(
            before,
            actions=(*before.actions, action),
            fingerprints=(*before.fingerprints, observation_fingerprint(observation)),
            final=final,
            best=max(before.best, final),
            over=status.terminated or status.truncated,
        )
        rewards = {"final": state.final, "best": state.best}
        result = StepResult(
            observation=observation,
            reward=rewards[self._convention] - getattr(before, self._convention),
            terminated=status.terminated,
            truncated=status.truncated and not status.terminated,
            info={"score": status.score, "rewards": rewards, **status.info},
        )
        return state, result


def _start(simulator: Simulator, state: ReplayState) -> tuple[str, ReplayState]:
    assert state.task is not None
    observation = simulator.start(state.task)
    fingerprints = (observation_fingerprint(observation),)
    return observation, dataclasses.replace(state, fingerprints=fingerprints)


def _after_end() -> StepResult:
    return StepResult(observation=EPISODE_OVER, reward=0.0, terminated=True, info={"valid": False})
