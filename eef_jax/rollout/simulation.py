"""Calls of an environment with a time limit, and its games brought back where a call fails.

A call that hangs, raises, or returns what it may not is repeated, a game's on a fresh instance that
has done the episode's actions so far. So a simulator that dies costs time, not the episode; and one
that fails at the same place again ends it as infrastructure's failure.
"""

import collections
import functools
import operator
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from eef_jax.envs import base
from eef_jax.envs.base import Env, Game, StepResult
from eef_jax.errors import DivergedError
from eef_jax.rollout import results
from eef_jax.rollout.threads import CallTimeoutError, ThreadPool
from eef_jax.types import Message, Outcome, Task
from eef_jax.untrusted import joined

T = TypeVar("T")


class EnvFault(Exception):
    """A call of the environment that gave nothing to go on with; `outcome` says which kind."""

    def __init__(self, outcome: Outcome, reason: str):
        super().__init__(reason)
        self.outcome = outcome


class Calls:
    """How the environment is called, for all episodes of a rollout.

    Attributes:
        repeated: for each reason of a failed call that was repeated, how often.

    Args:
        threads: where calls run, each with the time limit.
        attempts: how often a call is tried.
        max_observation: most characters of an observation.
    """

    def __init__(self, threads: ThreadPool, *, attempts: int, max_observation: int):
        self.max_observation = max_observation
        self.repeated: collections.Counter[str] = collections.Counter()
        self._threads = threads
        self._attempts = attempts

    async def ask(
        self, function: Callable[..., T], *args: Any, fault: Callable[[T], str] = lambda _: ""
    ) -> T:
        """Call one of the environment's own functions, again where it fails.

        Args:
            function: depends on its arguments alone.
            *args: its arguments.
            fault: what is wrong with its result; "" if nothing is.

        Raises:
            EnvFault: no attempt gave a result.
        """
        return await self.repeat(lambda: self.once(function, *args, fault=fault))

    async def text(self, function: Callable[..., str], *args: Any) -> str:
        """`ask` for an observation."""
        return await self.ask(function, *args, fault=self.fault_of_text)

    def fault_of_text(self, observation: Any) -> str:
        """What is wrong with an observation; "" if nothing is."""
        return results.fault_of_text(observation, max_observation=self.max_observation)

    async def once(
        self, function: Callable[..., T], *args: Any, fault: Callable[[T], str] = lambda _: ""
    ) -> T:
        """Call a function of the environment in a thread, with the time limit.

        Raises:
            EnvFault: it raised, exceeded the limit, or its result has a fault.
        """
        try:
            result = await self._threads.call(function, *args)
        except CallTimeoutError as error:
            raise EnvFault(Outcome.ENV_TIMEOUT, str(error)) from error
        except DivergedError as error:
            raise EnvFault(Outcome.DIVERGED, str(error)) from error
        except Exception as error:
            raise EnvFault(Outcome.ENV_ERROR, f"{type(error).__name__}: {error}") from error
        if found := fault(result):
            raise EnvFault(Outcome.ENV_ERROR, found)
        return result

    async def repeat(self, once: Callable[[], Awaitable[T]]) -> T:
        """Try something up to `attempts` times; what diverges is not tried again."""
        for left in reversed(range(self._attempts)):
            try:
                return await once()
            except EnvFault as fault:
                if not left or fault.outcome is Outcome.DIVERGED:
                    raise
                self.repeated[f"{fault.outcome}: {fault}"] += 1
        raise AssertionError("attempts is at least 1")


class Simulation:
    """One episode's game; where a call of it fails, a fresh game takes its place.

    Args:
        calls: how the environment is called.
        env: the environment.
        task: what is played.
    """

    def __init__(self, calls: Calls, env: Env, task: Task):
        self._calls = calls
        self._env = env
        self._task = task
        self._game: Game | None = None
        self._opening: tuple[tuple[Message, ...], str] | None = None
        self._actions: list[str] = []
        self._results: list[StepResult] = []

    async def start(self) -> tuple[tuple[Message, ...], str]:
        """Start the task.

        Returns:
            The messages before the first observation, and that.

        Raises:
            EnvFault: no attempt gave them.
        """
        await self._calls.repeat(self._fresh)
        assert self._opening is not None
        return self._opening

    async def turn(self, message: str) -> tuple[str, StepResult] | tuple[None, str]:
        """Do what a message says.

        Returns:
            Its action and what that led to; or None and an observation that says so.

        Raises:
            EnvFault: no attempt gave a result, or a fresh game shows something else than before.
        """
        action, result = await self._calls.repeat(functools.partial(self._turn, message))
        if action is None:
            return None, joined(result)
        self._actions.append(action)
        self._results.append(results.as_stored(result))
        return action, self._results[-1]

    async def replay(self, actions: Sequence[str]) -> list[StepResult]:
        """Do the first actions of a task, up to its end, in one call.

        Raises:
            EnvFault: as `turn`.
        """
        if actions:
            found = await self._calls.repeat(functools.partial(self._replay, actions, 0.0))
            self._actions += actions[: len(found)]
            self._results += found
        return self._results

    async def close(self) -> None:
        """Close the game; what goes wrong in it is counted, and is no longer the episode's."""
        game, self._game = self._game, None
        if game is None:
            return
        try:
            await self._calls.once(_CLOSE, game)
        except EnvFault as fault:
            self._calls.repeated[f"{fault.outcome}: a game could not be closed: {fault}"] += 1

    async def _turn(self, message: str) -> tuple[Any, Any]:
        """Parsing and stepping are one call: what costs time is the change of threads."""
        if self._game is None:
            await self._fresh()
        fault = functools.partial(
            results.fault_of_turn,
            reward=sum(result.reward for result in self._results),
            max_observation=self._calls.max_observation,
        )
        return await self._on_game(functools.partial(_turn, self._env, message), fault)

    async def _replay(self, actions: Sequence[str], reward: float) -> list[StepResult]:
        if self._game is None:
            await self._fresh()
        fault = functools.partial(
            results.fault_of_steps,
            actions=len(actions),
            reward=reward,
            max_observation=self._calls.max_observation,
        )
        found = await self._on_game(lambda game: base.replay(game, actions), fault)
        return [results.as_stored(result) for result in found]

    async def _fresh(self) -> None:
        """A new game in the episode's state."""
        made: list[Game] = []  # where a thread that is left behind may write

        def begin() -> tuple[tuple[Message, ...], str]:
            prompt = self._env.prompt(self._task)
            made.append(self._env.game())
            return prompt, made[0].reset(self._task)

        fault = functools.partial(
            results.fault_of_opening, max_observation=self._calls.max_observation
        )
        try:
            prompt, first = await self._calls.once(begin, fault=fault)
        except EnvFault as found:
            if made and found.outcome is not Outcome.ENV_TIMEOUT:
                self._game = made[0]
                await self.close()
            raise
        self._game = made[0]
        opening = tuple(prompt), joined(first)
        self._opening = opening if self._opening is None else self._opening
        await self._catch_up(opening[1])

    async def _catch_up(self, first: str) -> None:
        """Bring a new game to the episode's state; it must show what was seen before."""
        assert self._opening is not None
        again = await self._replay(self._actions, 0.0) if self._actions else []
        shown = [(self._opening[1], 0.0), *((r.observation, r.reward) for r in self._results)]
        now = [(first, 0.0), *((r.observation, r.reward) for r in again)]
        if shown != now:
            raise EnvFault(Outcome.DIVERGED, _difference(shown, now))

    async def _on_game(self, function: Callable[[Game], T], fault: Callable[[T], str]) -> T:
        """Call the game, which is dropped where that fails."""
        game = self._game
        assert game is not None
        try:
            return await self._calls.once(function, game, fault=fault)
        except EnvFault as found:
            if found.outcome is Outcome.ENV_TIMEOUT:
                self._game = None  # the thread left behind may still use it: it cannot be closed
            await self.close()
            raise


_CLOSE = operator.methodcaller("close")


def _turn(env: Env, message: str, game: Game) -> tuple[Any, Any]:
    action = env.parse(message)
    if action is None:
        return None, env.invalid(message)
    return action, game.step(action) if isinstance(action, str) else None


def _difference(shown: Sequence[tuple[str, float]], now: Sequence[tuple[str, float]]) -> str:
    """What a fresh game showed otherwise, as a sentence."""
    for number, (before, after) in enumerate(zip(shown, now, strict=False)):
        if before != after:
            return (
                f"a fresh game showed {after!r} after {number} actions, the episode's first "
                f"{before!r}: the environment does not repeat itself"
            )
    return f"a fresh game ended after {len(now) - 1} of {len(shown) - 1} actions"
