"""Episodes sharded across the processes of a run, and gathered in their order.

Which process plays an episode does not change it (random keys depend on task, attempt and turn
only), so the gathered trajectories equal those of a single process. They are exchanged through
storage: each process keeps what it plays, the lead reads what all have kept.
"""

from collections.abc import Mapping, Sequence

from eef_jax.cluster.hosts import Hosts
from eef_jax.errors import DataError
from eef_jax.storage.index import StoredAttempt
from eef_jax.types import Episode


def shard_episodes(episodes: Sequence[Episode], hosts: Hosts) -> list[Episode]:
    """This process's shard of the episodes, in their order.

    Args:
        episodes: all episodes; the same on every process.
        hosts: the processes of the run.
    """
    # All episodes of a task go to one process, because they share prefixes in its engine's cache.
    # Greedy: the next task goes to the process with the fewest episodes so far.
    if hosts.process_count == 1:
        return list(episodes)
    tasks: dict[str, list[Episode]] = {}
    for episode in episodes:
        tasks.setdefault(episode.task.id, []).append(episode)
    loads = [0] * hosts.process_count
    mine: set[str] = set()
    for together in tasks.values():
        least = loads.index(min(loads))
        loads[least] += len(together)
        if least == hosts.process_index:
            mine.update(episode.id for episode in together)
    return [episode for episode in episodes if episode.id in mine]


def in_order(
    kept: Mapping[str, StoredAttempt], episodes: Sequence[Episode], *, label: str
) -> list[StoredAttempt]:
    """What was kept of a stage, in the order of its episodes.

    Args:
        kept: by id, what all processes have played.
        episodes: of all processes.
        label: what was played, for the error message.

    Raises:
        DataError: an episode is missing.
    """
    missing = [episode.id for episode in episodes if episode.id not in kept]
    if missing:
        raise DataError(
            f"{label}: {len(missing)} of {len(episodes)} episodes are missing, {missing[0]!r} is "
            "the first: do all processes see the same --workdir? The same command plays the rest"
        )
    return [kept[episode.id] for episode in episodes]
