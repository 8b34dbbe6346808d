"""Play episodes as the config says, in one process or in all, and count their outcomes."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from etils import epath

from eef_jax.cluster.hosts import Hosts
from eef_jax.config.sections import RolloutSection
from eef_jax.envs.base import Env
from eef_jax.policies.base import Policy
from eef_jax.rollout import failures, gather, keeping, loop
from eef_jax.storage.index import StoredAttempt
from eef_jax.storage.trajectories import index_trajectories, write_trajectories
from eef_jax.types import Attempt, Episode, Task, Trajectory

_log = logging.getLogger(__name__)


def from_start(
    tasks: Sequence[Task], max_steps: int, *, prefix: str, round: int = 0
) -> list[Episode]:
    """One episode from the initial state of each task.

    Args:
        tasks: what to play.
        max_steps: cap on an agent's actions; a task may have a lower one.
        prefix: of the episodes' ids.
        round: the round they are played for.
    """
    return [
        Episode(
            id=f"{prefix}/{task.id}",
            task=task,
            round=round,
            attempt=0,
            max_steps=task.cap(max_steps),
        )
        for task in tasks
    ]


def play(
    env: Env,
    policy: Policy,
    episodes: Sequence[Episode],
    rollout: RolloutSection,
    *,
    label: str,
    **options: Any,
) -> list[Trajectory]:
    """Play episodes in this process and keep them in memory alone.

    Args:
        env: the environment.
        policy: who plays.
        episodes: what to play.
        rollout: the config's section `rollout`.
        label: what is played, for bar, log and errors.
        **options: further arguments of `loop.play_episodes_sync`.

    Raises:
        RolloutError: more than `rollout.max_failures` of them ended in an infrastructure failure;
            no further episodes begin once that is certain.
    """
    options |= _options(rollout, len(episodes))
    played = loop.play_episodes_sync(env, policy, episodes, label=label, **options)
    _check(played, len(episodes), rollout, label)
    return played


def play_stage(
    env: Env,
    policy: Policy,
    episodes: Sequence[Episode],
    rollout: RolloutSection,
    *,
    hosts: Hosts,
    parts: epath.Path,
    label: str,
    into: epath.Path | None = None,
    paid: bool = False,
    **options: Any,
) -> tuple[list[StoredAttempt], dict[str, float]]:
    """Play episodes on all processes, each its share; what has ended is kept at once.

    Args:
        env: the environment.
        policy: who plays.
        episodes: what all processes play together; those that `parts` holds are not played again,
            unless infrastructure ended them.
        rollout: the config's section `rollout`.
        hosts: the processes.
        parts: where episodes are kept as they end; all processes must see it.
        label: what is played, for bar, log and errors.
        into: folder that gets the trajectories once all are played; None: they stay in `parts`.
        paid: keep the policy's answers, too, so that none is asked for twice.
        **options: further arguments of `loop.run_episodes_sync`.

    Returns:
        On the lead all attempts, in the episodes' order, and what they cost; nothing on the others.

    Raises:
        RolloutError: too many infrastructure failures, on the lead, or on a process whose own are
            too many already.
        Stopped: the process was told to end.
    """
    with keeping.kept_episodes(parts) as kept:
        done = {name for name, attempt in kept.items() if attempt.outcome.completed}
    hosts.barrier()  # all processes have seen the same before one of them adds to it
    missing = [episode for episode in episodes if episode.id not in done]
    if done and hosts.is_lead:
        _log.info("%s: %d of %d episodes were kept", label, len(done), len(episodes))
    mine = gather.shard_episodes(missing, hosts)
    options |= _options(rollout, len(episodes)) | {"label": label, "progress": _bar(hosts)}
    if mine:
        failed = _play_and_keep(env, policy, mine, parts, hosts.process_index, paid=paid, **options)
        _check(failed, len(episodes), rollout, label)
    hosts.barrier()  # every process has kept its share before the lead reads
    if not hosts.is_lead:
        return [], {}
    with keeping.kept_episodes(parts) as kept:
        attempts = gather.in_order(kept, episodes, label=label)
        _check(attempts, len(episodes), rollout, label)
        if into is not None:
            write_trajectories(into, attempts)
    # Their places are in `parts` before, which do not outlive the stage.
    return list(index_trajectories(into)) if into else attempts, keeping.spent(parts)


def _play_and_keep(
    env: Env,
    policy: Policy,
    episodes: Sequence[Episode],
    parts: epath.Path,
    writer: int,
    *,
    paid: bool,
    **options: Any,
) -> list[Trajectory]:
    keeper = keeping.Keeper(parts, policy, writer=writer)
    answers = keeping.KeptAnswers(policy, parts, on_paid=keeper.note_spent) if paid else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(keeper)
        if answers is not None:
            stack.enter_context(answers.journal)
        failed = loop.run_episodes_sync(
            env, answers or policy, episodes, on_done=keeper.keep, **options
        )
    return failed


def calls(rollout: RolloutSection) -> dict[str, Any]:
    """The loop's arguments for calls of the environment, from the config's section `rollout`."""
    return {
        "env_threads": rollout.env_threads,
        "env_timeout_s": rollout.env_timeout_s,
        "env_attempts": rollout.env_attempts,
        "max_observation": rollout.max_observation,
    }


def _options(rollout: RolloutSection, total: int) -> dict[str, Any]:
    """Arguments of the loop, from the config's section `rollout`."""
    return calls(rollout) | {
        "concurrency": rollout.concurrency,
        "max_consecutive_invalid": rollout.max_consecutive_invalid,
        "max_failures": failures.allowed_failures(rollout.max_failures, total),
    }


def _bar(hosts: Hosts) -> bool | None:
    return None if hosts.is_lead else False


def _check(attempts: Sequence[Attempt], episodes: int, rollout: RolloutSection, label: str) -> None:
    failures.check_failures(
        attempts, episodes=episodes, max_failures=rollout.max_failures, label=label
    )


def counts(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Episodes, outcomes, share of wins and turns played, as JSON values."""
    outcomes: dict[str, int] = {}
    for attempt in attempts:
        outcomes[attempt.outcome.value] = outcomes.get(attempt.outcome.value, 0) + 1
    steps = sum(attempt.length - attempt.fork_step for attempt in attempts)
    wins = sum(attempt.win for attempt in attempts)
    return {
        "episodes": len(attempts),
        "outcomes": dict(sorted(outcomes.items())),
        "win_rate": round(wins / max(len(attempts), 1), 4),
        "turns": steps,
    }
