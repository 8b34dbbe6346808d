"""One running episode: ask the policy, parse the action, step the environment, record the turn."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from eef_jax.cluster import stopping
from eef_jax.envs.base import Env, StepResult
from eef_jax.policies.base import Policy
from eef_jax.rollout import results
from eef_jax.rollout.bar import Bar
from eef_jax.rollout.simulation import Calls, EnvFault, Simulation
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
from eef_jax.untrusted import joined


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolloutContext:
    """What all episodes of one `play_episodes` call share."""

    env: Env
    policy: Policy
    calls: Calls
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
        self.simulation = Simulation(context.calls, context.env, episode.task)

    async def play(self) -> Trajectory | None:
        """The episode's trajectory; None where the process was told to end before."""
        ended: _Ended | EnvFault | None = None
        try:
            self._cut_if_told()
            self.prompt, self.observation = await self.simulation.start()
            await self._replay()
            while True:
                await self._turn()
        except (_Ended, EnvFault) as end:
            ended = end
        except _Cut:
            pass
        finally:
            self.context.policy.finish(self.episode.id)
        await self.simulation.close()
        return None if ended is None else await self._finish(ended.outcome, str(ended))

    async def _replay(self) -> None:
        """Replay the parent's actions; every observation must equal the parent's."""
        if self.episode.parent is None:
            return
        parent = self.episode.parent.load()
        prefix = parent.steps[: self.episode.fork_step]
        actions = [step.action for step in prefix if step.action is not None]
        replayed = iter(await self.simulation.replay(actions))
        same_tokenizer = parent.tokenizer == self.context.policy.tokenizer
        seen = [step.observation for step in parent.steps] + [parent.final_observation]
        for step in prefix:
            self._check_replay(parent, seen)
            # Recorded token ids are only valid under the tokenizer that produced them.
            if not same_tokenizer:
                step = dataclasses.replace(step, tokens=(), logprobs=())
            if step.action is None:
                invalid = self.context.env.invalid
                self._record(step, joined(await self.context.calls.text(invalid, step.message)))
            else:
                self._record(step, next(replayed))
        self._check_replay(parent, seen)

    def _check_replay(self, parent: Trajectory, seen: Sequence[str]) -> None:
        index = len(self.steps)
        if self.observation != seen[index]:
            raise _Ended(
                Outcome.DIVERGED,
                f"observation {index} of parent {parent.id!r} was "
                f"{seen[index]!r}, its replay gave {self.observation!r}",
            )

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
        message = joined(completion.text)
        action, result = await self.simulation.turn(message)
        self.context.bar.count_turn(completion)
        step = Step(
            observation=self.observation,
            message=message,
            action=action,
            source=self.context.source,
            tokens=completion.tokens,
            logprobs=completion.logprobs,
        )
        self._record(step, result)
        self.invalid = self.invalid + 1 if action is None else 0
        if self.invalid >= self.context.max_consecutive_invalid:
            raise _Ended(Outcome.INVALID_ACTIONS)

    def _record(self, step: Step, result: StepResult | str) -> None:
        """Record a step and its result; of a message without an action, the observation after it.

        Raises:
            _Ended: the episode ends with it.
        """
        if isinstance(result, str):
            self.steps.append(step)
            self.observation = result
            return
        self.steps.append(dataclasses.replace(step, reward=result.reward, info=result.info))
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

    async def _finish(self, outcome: Outcome, reason: str) -> Trajectory:
        win = False
        if outcome.completed:
            env, calls = self.context.env, self.context.calls
            try:
                win = bool(await calls.ask(env.is_win, self.reward, fault=results.fault_of_truth))
            except EnvFault as fault:
                return self._trajectory(fault.outcome, str(fault), win=False)
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
