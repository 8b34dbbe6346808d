"""The rollout loop: plays many episodes concurrently, one coroutine each.

For each turn it asks the policy, parses the action and steps the environment; a fork first replays
its parent's actions and checks that the observations are the same. There is no barrier between
turns: an episode continues as soon as its message is generated. Every failure becomes the outcome
of its trajectory and is counted; infrastructure failures never count against the policy.
"""

import asyncio
import collections
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tqdm

from eef_jax.config.sections import RolloutSection
from eef_jax.envs import base
from eef_jax.envs.base import Env, Game, StepResult
from eef_jax.errors import DivergedError
from eef_jax.policies.base import Policy
from eef_jax.rollout import failures
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

_log = logging.getLogger(__name__)


_DEFAULTS = RolloutSection()


async def play_episodes(
    env: Env,
    policy: Policy,
    episodes: Sequence[Episode],
    *,
    concurrency: int = _DEFAULTS.concurrency,
    env_threads: int = _DEFAULTS.env_threads,
    env_timeout_s: float = _DEFAULTS.env_timeout_s,
    max_consecutive_invalid: int = _DEFAULTS.max_consecutive_invalid,
    source: Source = "policy",
    provenance: Mapping[str, Any] | None = None,
    max_failures: int | None = None,
    on_done: Callable[[Trajectory], None] | None = None,
    progress: bool | None = None,
    label: str = "rollouts",
) -> list[Trajectory]:
    """Play episodes concurrently.

    Args:
        env: the environment.
        policy: generates the agent's messages.
        episodes: the episodes to play; their ids must differ.
        concurrency: number of concurrent episodes; 0: as many as the policy serves concurrently.
        env_threads: number of threads that run environment calls.
        env_timeout_s: wall-clock limit of one environment call, in seconds; the replay of a fork's
            actions is one call.
        max_consecutive_invalid: number of consecutive messages without a valid action that ends an
            episode.
        source: recorded as the source of each new step: `policy` or `expert`.
        provenance: recorded in every trajectory.
        max_failures: number of infrastructure failures after which no further episode begins; None:
            no limit.
        on_done: called with each trajectory when it ends, in order of completion.
        progress: whether to show a progress bar; None shows one on a terminal.
        label: what is played, for the bar and the log; "": neither is shown.

    Returns:
        One trajectory for each episode, in the episodes' order and with their ids; only those that
        began where there were more than `max_failures`.

    Raises:
        ValueError: two episodes have the same id.
    """
    ids = [episode.id for episode in episodes]
    if len(set(ids)) < len(ids):
        duplicates = [i for i, n in collections.Counter(ids).items() if n > 1]
        raise ValueError(
            f"episode ids must differ, given more than once: {', '.join(duplicates[:5])}"
        )
    context = _RolloutContext(
        env=env,
        policy=policy,
        threads=ThreadPool(env_threads, timeout_s=env_timeout_s),
        max_consecutive_invalid=max_consecutive_invalid,
        source=source,
        provenance=dict(provenance or {}),
        bar=_Bar(len(episodes), shown=progress, label=label),
    )
    done: dict[str, Trajectory] = {}
    failed = 0
    queue = iter(queue_order(episodes))

    async def player() -> None:
        nonlocal failed
        for episode in queue:
            trajectory = await _Episode(context, episode).play()
            done[trajectory.id] = trajectory
            failed += not trajectory.outcome.completed
            context.bar.count_episode(trajectory)
            if on_done is not None:
                on_done(trajectory)
            if max_failures is not None and failed > max_failures:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency or policy.concurrency, len(episodes))):
                group.create_task(player())
    finally:
        context.threads.close()
        context.bar.close()
    trajectories = [done[i] for i in ids if i in done]
    gave_up = max_failures is not None and failed > max_failures
    if label:
        # After too many failures the caller raises an error that names them.
        _report(trajectories, label, warn=not gave_up)
    return trajectories


def play_episodes_sync(
    env: Env, policy: Policy, episodes: Sequence[Episode], **options: Any
) -> list[Trajectory]:
    """`play_episodes` for callers outside an event loop; same arguments."""
    return asyncio.run(play_episodes(env, policy, episodes, **options))


def queue_order(episodes: Iterable[Episode]) -> list[Episode]:
    """Order episodes so that those with a common prefix are adjacent, the longest prefix first."""
    # For the engine's prefix cache: a parent's longest prefix is prefilled once, for its deepest
    # fork, and its shorter prefixes and the task's start, which come later, are cache hits.
    tasks: dict[str, int] = {}
    parents: dict[str, int] = {}
    keyed = []
    for index, episode in enumerate(episodes):
        task = tasks.setdefault(episode.task.id, len(tasks))
        forked = episode.parent if episode.fork_step > 0 else None
        parent = 0 if forked is None else parents.setdefault(forked.id, len(parents))
        keyed.append(((task, forked is None, parent, -episode.fork_step, index), episode))
    return [episode for _, episode in sorted(keyed, key=lambda pair: pair[0])]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _RolloutContext:
    """What all episodes of one `play_episodes` call share."""

    env: Env
    policy: Policy
    threads: ThreadPool
    max_consecutive_invalid: int
    source: Source
    provenance: dict[str, Any]
    bar: "_Bar"


class _Ended(Exception):
    """The episode has ended; raised from anywhere inside it."""

    def __init__(self, outcome: Outcome, reason: str = ""):
        super().__init__(reason)
        self.outcome = outcome


class _Episode:
    """State of one running episode."""

    def __init__(self, context: _RolloutContext, episode: Episode):
        self.context = context
        self.episode = episode
        self.steps: list[Step] = []
        self.observation = ""
        self.reward = 0.0
        self.invalid = 0
        self.prompt: tuple[Message, ...] = ()
        self.game: Game
        self.playing = False

    async def play(self) -> Trajectory:
        try:
            await self._start()
            await self._replay()
            while True:
                await self._turn()
        except _Ended as end:
            outcome, reason = end.outcome, str(end)
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

    async def _replay(self) -> None:
        """Replay the parent's actions; every observation must equal the parent's."""
        parent = self.episode.parent
        if parent is None:
            return
        prefix = parent.steps[: self.episode.fork_step]
        actions = [step.action for step in prefix if step.action is not None]
        results = iter(await self._act(base.replay, self.game, actions))
        same_tokenizer = parent.tokenizer == self.context.policy.tokenizer
        seen = [step.observation for step in parent.steps] + [parent.final_observation]
        for step in prefix:
            self._check_replay(parent, seen)
            # Recorded token ids are only valid under the tokenizer that produced them.
            if not same_tokenizer:
                step = dataclasses.replace(step, tokens=(), logprobs=())
            self._record(step, None if step.action is None else next(results))
        self._check_replay(parent, seen)

    def _check_replay(self, parent: Trajectory, seen: Sequence[str]) -> None:
        index = len(self.steps)
        if self.observation != seen[index]:
            raise _Ended(
                Outcome.DIVERGED,
                f"observation {index} of parent {parent.id!r} was "
                f"{seen[index]!r}, its replay gave {self.observation!r}",
            )

    async def _turn(self) -> None:
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

    def _record(self, step: Step, result: StepResult | None) -> None:
        """Record a step and its result; None if its message held no valid action."""
        if result is None:
            self.steps.append(step)
            self.observation = self._render(self.context.env.invalid, step.message)
            return
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


class _Bar:
    """Progress bar with wins, turns/s and tokens/s."""

    def __init__(self, total: int, *, shown: bool | None, label: str):
        self._bar = tqdm.tqdm(
            total=total,
            desc=label,
            unit="episode",
            smoothing=0,  # the mean speed: episodes end in bursts
            disable=not (label and (sys.stderr.isatty() if shown is None else shown)),
        )
        self._start = time.monotonic()
        self._wins = self._turns = self._tokens = 0

    def count_turn(self, completion: Completion) -> None:
        self._turns += 1
        self._tokens += completion.prefilled + len(completion.tokens)

    def count_episode(self, trajectory: Trajectory) -> None:
        self._wins += trajectory.win
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._bar.set_postfix(
            {
                "wins": self._wins,
                "turns/s": f"{self._turns / seconds:.0f}",
                "tokens/s": f"{self._tokens / seconds:.0f}",
            },
            refresh=False,
        )
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


def _report(trajectories: Sequence[Trajectory], label: str, *, warn: bool) -> None:
    """Log the counts by outcome, and, with `warn`, infrastructure failures by reason."""
    counts = collections.Counter(str(t.outcome) for t in trajectories)
    _log.info("%s: %d episodes, %s", label, len(trajectories), dict(sorted(counts.items())))
    failed = [t for t in trajectories if not t.outcome.completed]
    if failed and warn:
        _log.warning(
            "%s: %d of %d episodes ended in an infrastructure failure:\n  %s",
            label,
            len(failed),
            len(trajectories),
            "\n  ".join(failures.reasons(failed)),
        )
