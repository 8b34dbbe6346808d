"""Episodes over a pool of simulators that cannot be saved: lists of actions, played again at need.

A game holds no JVM: each step takes the seat that stands in the game's state, or brings another one
there. So any number of games lives over few JVMs, a fork is a copy of the list, and a JVM that dies
costs nothing but the replay. Knows actions, texts and scores, no particular simulator.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from eef_jax.envs._jvm.pool import Pool
from eef_jax.envs._jvm.world import Reading, State, World, fingerprint, use_at
from eef_jax.envs.base import StepResult
from eef_jax.errors import EnvError
from eef_jax.types import Task

OVER = "The task is over."

Convention = Literal["final", "best"]
CONVENTIONS: tuple[Convention, ...] = ("final", "best")


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
        observation, self._state = use_at(self._pool, State(task=task), _first)
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
        results, self._state = use_at(
            self._pool, state, lambda world, state: self._steps(world, state, actions)
        )
        return results

    def admissible(self) -> list[str]:
        """Actions that are possible now."""
        if self._state.task is None or self._state.over:
            return []
        return use_at(self._pool, self._state, lambda world, state: (world.admissible(), state))[0]

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


def _first(world: World, state: State) -> tuple[str, State]:
    assert state.task is not None
    observation = world.start(state.task)
    return observation, dataclasses.replace(state, prints=(fingerprint(observation),))


def _over() -> StepResult:
    return StepResult(observation=OVER, reward=0.0, terminated=True, info={"valid": False})
