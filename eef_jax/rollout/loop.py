"""The rollout loop: plays many episodes concurrently, one coroutine each.

For each turn it asks the policy, parses the action and steps the environment; a fork first replays
its parent's actions and checks that the observations are the same. There is no barrier between
turns: an episode continues as soon as its message is generated. Every failure becomes the outcome
of its trajectory and is counted; infrastructure failures never count against the policy. When the
process is told to end (`cluster.stopping`), messages in flight may end and no turn begins.
"""

import asyncio
import collections
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from eef_jax.cluster import stopping
from eef_jax.config.sections import RolloutSection
from eef_jax.envs.base import Env
from eef_jax.policies.base import Policy
from eef_jax.rollout import failures
from eef_jax.rollout.bar import Bar
from eef_jax.rollout.episode import EpisodePlayer, RolloutContext
from eef_jax.rollout.simulation import Calls
from eef_jax.rollout.threads import ThreadPool, left_behind
from eef_jax.types import Episode, Source, Trajectory

_log = logging.getLogger(__name__)


_DEFAULTS = RolloutSection()
_LOOK_S = 0.2  # how often a loop asks whether it shall end
_LAST_MESSAGES_S = 5.0  # in which messages in flight may end then: an expert's are paid


async def run_episodes(
    env: Env,
    policy: Policy,
    episodes: Sequence[Episode],
    *,
    on_done: Callable[[Trajectory], None],
    concurrency: int = _DEFAULTS.concurrency,
    env_threads: int = _DEFAULTS.env_threads,
    env_timeout_s: float = _DEFAULTS.env_timeout_s,
    env_attempts: int = _DEFAULTS.env_attempts,
    max_observation: int = _DEFAULTS.max_observation,
    max_consecutive_invalid: int = _DEFAULTS.max_consecutive_invalid,
    source: Source = "policy",
    provenance: Mapping[str, Any] | None = None,
    max_failures: int | None = None,
    progress: bool | None = None,
    label: str = "rollouts",
) -> list[Trajectory]:
    """Play episodes concurrently; none is kept in memory once it has ended.

    Args:
        env: the environment.
        policy: generates the agent's messages.
        episodes: the episodes to play; their ids must differ.
        on_done: called with each trajectory when it ends, in order of completion.
        concurrency: number of concurrent episodes; 0: as many as the policy serves concurrently.
        env_threads: number of threads that run environment calls.
        env_timeout_s: wall-clock limit of one environment call, in seconds; the replay of a fork's
            actions is one call.
        env_attempts: how often an environment call is tried; on a fresh game where one was at work.
        max_observation: most characters of an observation; a longer one is the environment's fault.
        max_consecutive_invalid: number of consecutive messages without a valid action that ends an
            episode.
        source: recorded as the source of each new step: `policy` or `expert`.
        provenance: recorded in every trajectory.
        max_failures: number of infrastructure failures after which no further episode begins; None:
            no limit.
        progress: whether to show a progress bar; None shows one on a terminal.
        label: what is played, for the bar and the log; "": neither is shown.

    Returns:
        The trajectories that infrastructure ended.

    Raises:
        ValueError: two episodes have the same id.
        Stopped: the process was told to end; what had ended by then was handed to `on_done`.
    """
    _check_ids(episodes)
    pool = ThreadPool(env_threads, timeout_s=env_timeout_s)
    calls = Calls(pool, attempts=env_attempts, max_observation=max_observation)
    context = RolloutContext(
        env=env,
        policy=policy,
        calls=calls,
        max_consecutive_invalid=max_consecutive_invalid,
        source=source,
        provenance=dict(provenance or {}),
        bar=Bar(len(episodes), shown=progress, label=label),
    )
    outcomes: collections.Counter[str] = collections.Counter()
    failed: list[Trajectory] = []
    queue = iter(queue_order(episodes))

    def gave_up() -> bool:
        return max_failures is not None and len(failed) > max_failures

    async def player() -> None:
        for episode in queue:
            trajectory = await EpisodePlayer(context, episode).play()
            if trajectory is None:
                return
            outcomes[trajectory.outcome.value] += 1
            if not trajectory.outcome.completed:
                failed.append(trajectory)
            context.bar.count_episode(trajectory)
            on_done(trajectory)
            if gave_up():
                return

    try:
        await _run_players(
            [player() for _ in range(min(concurrency or policy.concurrency, len(episodes)))]
        )
    finally:
        pool.close()
        context.bar.close()
    stopping.raise_if_requested()
    if label:
        # After too many failures the caller raises an error that names them.
        _report(outcomes, failed, label, warn=not gave_up())
        _report_calls(calls, pool, label)
    return failed


async def play_episodes(
    env: Env, policy: Policy, episodes: Sequence[Episode], **options: Any
) -> list[Trajectory]:
    """`run_episodes`, for as many episodes as fit into memory.

    Returns:
        One trajectory for each episode, in the episodes' order and with their ids; only those that
        began where there were more than `max_failures`.
    """
    done: dict[str, Trajectory] = {}
    await run_episodes(
        env, policy, episodes, on_done=lambda t: done.__setitem__(t.id, t), **options
    )
    return [done[episode.id] for episode in episodes if episode.id in done]


def play_episodes_sync(
    env: Env, policy: Policy, episodes: Sequence[Episode], **options: Any
) -> list[Trajectory]:
    """`play_episodes` for callers outside an event loop; same arguments."""
    with stopping.cooperative():
        return asyncio.run(play_episodes(env, policy, episodes, **options))


def run_episodes_sync(
    env: Env, policy: Policy, episodes: Sequence[Episode], **options: Any
) -> list[Trajectory]:
    """`run_episodes` for callers outside an event loop; same arguments."""
    with stopping.cooperative():
        return asyncio.run(run_episodes(env, policy, episodes, **options))


def _check_ids(episodes: Sequence[Episode]) -> None:
    counts = collections.Counter(episode.id for episode in episodes)
    if duplicates := [i for i, n in counts.items() if n > 1]:
        raise ValueError(
            f"episode ids must differ, given more than once: {', '.join(duplicates[:5])}"
        )


async def _run_players(players: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines to their end; where the process is told to end, for a little while longer."""
    tasks = [asyncio.create_task(player) for player in players]
    pending, until = set(tasks), math.inf
    try:
        while pending and time.monotonic() < until:
            done, pending = await asyncio.wait(
                pending, timeout=_LOOK_S, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                task.result()
            if stopping.requested():
                until = min(until, time.monotonic() + _LAST_MESSAGES_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


def _report(
    outcomes: Mapping[str, int], failed: Sequence[Trajectory], label: str, *, warn: bool
) -> None:
    """Log the counts by outcome, and, with `warn`, infrastructure failures by reason."""
    played = sum(outcomes.values())
    _log.info("%s: %d episodes, %s", label, played, dict(sorted(outcomes.items())))
    if failed and warn:
        lines = failures.reasons(failed)
        _log.warning(
            "%s: %d of %d episodes ended in an infrastructure failure:" + "\n  %s" * len(lines),
            label,
            len(failed),
            played,
            *lines,
        )


def _report_calls(calls: Calls, pool: ThreadPool, label: str) -> None:
    """Log the environment calls that failed and were repeated, and the threads that they cost."""
    lines = failures.commonest(calls.repeated)
    if lines:
        _log.warning(
            "%s: environment calls that failed and were repeated: %d" + "\n  %s" * len(lines),
            label,
            calls.repeated.total(),
            *lines,
        )
    if pool.timeouts:
        _log.warning(
            "%s: environment calls that exceeded the time limit: %d; "
            "threads left behind that are still in one: %d",
            label,
            pool.timeouts,
            left_behind(),
        )
