"""One running episode: ask the policy, parse the action, step the environment, record the turn."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from eef_jax.cluster import stopping
from eef_jax.envs import base
from eef_jax.envs.base import Env, Game
from eef_jax.errors import DivergedError
from eef_jax.policies.base import Policy
from eef_jax.rollout import results
from eef_jax.rollout.bar import Bar
from eef_jax.rollout.threads import CallTimeoutError, ThreadPool
from eef_jax.types import (
    ChatRequest,
    Completion,
    Episode,
    Message,
    Outcome,
    Source,
    Step,
    Trajectory,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolloutContext:
    """What all episodes of one `play_episodes` call share."""

    env: Env
    policy: Policy
    threads: ThreadPool
    max_consecutive_invalid: int
    source: Source
    provenance: dict[str, Any]
    bar: Bar


class _Ended(Exception):
    """The episode has ended; raised from anywhere inside it."""

    def __init__(self, outcome: Outcome, reason: str = ""):
        super().__init__(reason)
        self.outcome = outcome


class _Cut(Exception):
    """The process was told to end before the episode did."""


class EpisodePlayer:
    """State of one running episode."""

    def __init__(self, context: RolloutContext, episode: Episode):
        self.context = context
        self.episode = episode
        self.steps: list[Step] = []
        self.observation = ""
        self.reward = 0.0
        self.invalid = 0
        self.prompt: tuple[Message, ...] = ()
        self.game: Game
        self.playing = False

    async def play(self) -> Trajectory | None:
        """The episode's trajectory; None where the process was told to end before."""
        try:
            self._cut_if_told()
            await self._start()
            await self._replay()
            while True:
                await self._turn()
        except _Ended as end:
            outcome, reason = end.outcome, str(end)
        except _Cut:
            if self.playing:
                with contextlib.suppress(_Ended):
                    await self._act(self.game.close)
            return None
        finally:
            self.context.policy.finish(self.episode.id)
        try:
            return await self._finish(outcome, reason)
        except _Ended as end:
            return self._trajectory(end.outcome, str(end), win=False)

    async def _start(self) -> None:
        env = self.context.env
        self.prompt = tuple(self._render(env.prompt, self.episode.task))
        self.game = await self._act(env.game)
        self.playing = True
        self.observation = await self._act(self.game.reset, self.episode.task)
        self._end_at(results.fault_of_text(self.observation))

    async def _replay(self) -> None:
        """Replay the parent's actions; every observation must equal the parent's."""
        if self.episode.parent is None:
            return
        parent = self.episode.parent.load()
        prefix = parent.steps[: self.episode.fork_step]
        actions = [step.action for step in prefix if step.action is not None]
        replayed = iter(await self._act(base.replay, self.game, actions))
        same_tokenizer = parent.tokenizer == self.context.policy.tokenizer
        seen = [step.observation for step in parent.steps] + [parent.final_observation]
        for step in prefix:
            self._check_replay(parent, seen)
            # Recorded token ids are only valid under the tokenizer that produced them.
            if not same_tokenizer:
                step = dataclasses.replace(step, tokens=(), logprobs=())
            self._record(step, None if step.action is None else next(replayed))
        self._check_replay(parent, seen)

    def _check_replay(self, parent: Trajectory, seen: Sequence[str]) -> None:
        index = len(self.steps)
        if self.observation != seen[index]:
            raise _Ended(
                Outcome.DIVERGED,
                f"observation {index} of parent {parent.id!r} was "
                f"{seen[index]!r}, its replay gave {self.observation!r}",
            )

    def _end_at(self, fault: str) -> None:
        """End the episode at a fault of the environment; "": there is none."""
        if fault:
            raise _Ended(Outcome.ENV_ERROR, fault)

    def _cut_if_told(self) -> None:
        if stopping.requested():
            raise _Cut

    async def _turn(self) -> None:
        self._cut_if_told()
        if len(self.steps) >= self.episode.max_steps:
            raise _Ended(Outcome.MAX_STEPS)
        completion = await self._ask()
        if completion.finish == "context":
            raise _Ended(Outcome.MAX_CONTEXT, completion.reason)
        if completion.finish == "quit":
            raise _Ended(Outcome.FAILED, completion.reason)
        action = self._render(self.context.env.parse, completion.text)
        self.context.bar.count_turn(completion)
        step = Step(
            observation=self.observation,
            message=completion.text,
            action=action,
            source=self.context.source,
            tokens=completion.tokens,
            logprobs=completion.logprobs,
        )
        result = None if action is None else await self._act(self.game.step, action)
        self._record(step, result)
        self.invalid = self.invalid + 1 if action is None else 0
        if self.invalid >= self.context.max_consecutive_invalid:
            raise _Ended(Outcome.INVALID_ACTIONS)

    def _record(self, step: Step, result: Any) -> None:
        """Record a step and its result, if its message held an action.

        Raises:
            _Ended: the episode ends with it, or the result is none.
        """
        if step.action is None:
            self.steps.append(step)
            self.observation = self._render(self.context.env.invalid, step.message)
            self._end_at(results.fault_of_text(self.observation))
            return
        self._end_at(results.fault_of_step(result, self.reward))
        self.steps.append(dataclasses.replace(step, reward=result.reward, info=dict(result.info)))
        self.observation = result.observation
        self.reward += result.reward
        if len(self.steps) < self.episode.fork_step and (result.terminated or result.truncated):
            raise _Ended(Outcome.DIVERGED, f"the replay ended at step {len(self.steps)}")
        if result.terminated:
            raise _Ended(Outcome.FAILED)
        if result.truncated:
            raise _Ended(Outcome.MAX_STEPS)

    async def _ask(self) -> Completion:
        messages = list(self.prompt)
        tokens: list[tuple[int, ...]] = [()] * len(messages)
        for step in self.steps:
            messages.append(Message(role="user", content=step.observation))
            messages.append(Message(role="assistant", content=step.message))
            tokens += [(), step.tokens]
        messages.append(Message(role="user", content=self.observation))
        request = ChatRequest(
            episode=self.episode.id,
            messages=tuple(messages),
            tokens=(*tokens, ()),
            turn=len(self.steps),
            attempt=self.episode.attempt,
            task=self.episode.task.id,
        )
        try:
            return await self.context.policy.act(request)
        except Exception as error:
            raise _Ended(Outcome.POLICY_ERROR, f"{type(error).__name__}: {error}") from error

    def _render(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call one of the environment's pure text functions, in this thread."""
        try:
            return function(*args)
        except Exception as error:
            raise _Ended(Outcome.ENV_ERROR, f"{type(error).__name__}: {error}") from error

    async def _act(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call the simulator in a thread, with the time limit."""
        try:
            return await self.context.threads.call(function, *args)
        except CallTimeoutError as error:
            self.playing = False  # the abandoned thread may still use the game: do not close it
            raise _Ended(Outcome.ENV_TIMEOUT, str(error)) from error
        except DivergedError as error:
            raise _Ended(Outcome.DIVERGED, str(error)) from error
        except Exception as error:
            raise _Ended(Outcome.ENV_ERROR, f"{type(error).__name__}: {error}") from error

    async def _finish(self, outcome: Outcome, reason: str) -> Trajectory:
        if self.playing:
            await self._act(self.game.close)
        win = outcome.completed and bool(self._render(self.context.env.is_win, self.reward))
        return self._trajectory(Outcome.WON if win else outcome, reason, win=win)

    def _trajectory(self, outcome: Outcome, reason: str, *, win: bool) -> Trajectory:
        episode, context = self.episode, self.context
        provenance = dict(context.provenance)
        if reason:
            provenance["reason"] = reason
        return Trajectory(
            id=episode.id,
            task=episode.task,
            steps=tuple(self.steps),
            final_observation=self.observation,
            reward=self.reward,
            win=win,
            outcome=outcome,
            source=context.source,
            agent=context.policy.name,
            round=episode.round,
            attempt=episode.attempt,
            parent=None if episode.parent is None else episode.parent.id,
            fork_step=min(episode.fork_step, len(self.steps)),
            tokenizer=context.policy.tokenizer,
            provenance=provenance,
        )
