"""Play episodes as the config says, in one process or in all, and count their outcomes."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from eef_jax.cluster.hosts import Hosts
from eef_jax.config.sections import RolloutSection
from eef_jax.envs.base import Env
from eef_jax.policies.base import Policy
from eef_jax.rollout import failures, gather, loop
from eef_jax.types import Episode, Task, Trajectory


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
    total: int | None = None,
    **options: Any,
) -> list[Trajectory]:
    """Play episodes in this process.

    Args:
        env: the environment.
        policy: who plays.
        episodes: what to play.
        rollout: the config's section `rollout`.
        label: what is played, for bar, log and errors.
        total: number of episodes of all processes; by default those given.
        **options: further arguments of `loop.play_episodes_sync`.

    Raises:
        RolloutError: more than `rollout.max_failures` of the total ended in an infrastructure
            failure; no further episodes begin once that is certain.
    """
    total = len(episodes) if total is None else total
    played = loop.play_episodes_sync(
        env,
        policy,
        episodes,
        concurrency=rollout.concurrency,
        env_threads=rollout.env_threads,
        env_timeout_s=rollout.env_timeout_s,
        max_consecutive_invalid=rollout.max_consecutive_invalid,
        max_failures=failures.allowed_failures(rollout.max_failures, total),
        label=label,
        **options,
    )
    failures.check_failures(played, episodes=total, max_failures=rollout.max_failures, label=label)
    return played


def play_together(
    env: Env,
    policy: Policy,
    episodes: Sequence[Episode],
    rollout: RolloutSection,
    *,
    hosts: Hosts,
    folder: epath.Path,
    provenance: Mapping[str, Any],
    label: str,
) -> tuple[list[Trajectory], dict[str, float]]:
    """Play episodes on all processes; each plays its part.

    Args:
        env: the environment.
        policy: who plays.
        episodes: what all processes play together.
        rollout: the config's section `rollout`.
        hosts: the processes.
        folder: where the parts are kept until they are merged; all processes must see it.
        provenance: goes into each trajectory.
        label: what is played, for bar, log and errors.

    Returns:
        On the lead all trajectories, in the episodes' order, and the tokens spent; on the others
        their own.

    Raises:
        RolloutError: on the lead, or on a process whose own failures are too many already (`play`).
    """
    played = play(
        env,
        policy,
        gather.shard_episodes(episodes, hosts),
        rollout,
        label=label,
        total=len(episodes),
        provenance=provenance,
        progress=None if hosts.is_lead else False,
    )
    played, spent = gather.gather_trajectories(folder, episodes, played, policy.spent(), hosts)
    failures.check_failures(
        played, episodes=len(episodes), max_failures=rollout.max_failures, label=label
    )
    return played, spent


def counts(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Episodes, outcomes, share of wins and turns played, as JSON values."""
    outcomes: dict[str, int] = {}
    for trajectory in trajectories:
        outcomes[trajectory.outcome.value] = outcomes.get(trajectory.outcome.value, 0) + 1
    steps = sum(len(t.steps) - t.fork_step for t in trajectories)
    wins = sum(t.win for t in trajectories)
    return {
        "episodes": len(trajectories),
        "outcomes": dict(sorted(outcomes.items())),
        "win_rate": round(wins / max(len(trajectories), 1), 4),
        "turns": steps,
    }
