"""Episodes sharded across the processes of a run, and their trajectories gathered on the lead.

Which process plays an episode does not change it (random keys depend on task, attempt and turn
only), so the gathered trajectories equal those of a single process. They are exchanged through
storage: each process writes its shard, the lead reads all of them.
"""

from collections.abc import Mapping, Sequence

from etils import epath

from eef_jax.cluster.hosts import Hosts
from eef_jax.storage import files
from eef_jax.storage.trajectories import read_trajectories, write_trajectories
from eef_jax.types import Episode, Trajectory

SPENT = "spent.json"
_REMEDY = "start all processes again with the same --workdir, so that the stage runs again"


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


def gather_trajectories(
    folder: epath.PathLike,
    episodes: Sequence[Episode],
    played: list[Trajectory],
    spent: Mapping[str, float],
    hosts: Hosts,
) -> tuple[list[Trajectory], dict[str, float]]:
    """Gather the trajectories and token counts of all processes on the lead.

    Args:
        folder: temporary folder for the shards, in storage that all processes share; deleted
            afterwards.
        episodes: the episodes of all processes.
        played: this process's trajectories.
        spent: this process's token counts by name.
        hosts: the processes of the run.

    Returns:
        On the lead, one trajectory for each episode in the episodes' order, and the summed counts;
        on the other processes their own trajectories and counts.
    """
    if hosts.process_count == 1:
        return played, dict(spent)
    parts = [epath.Path(folder) / f"process-{number:05d}" for number in range(hosts.process_count)]
    own = parts[hosts.process_index]
    write_trajectories(own, played)
    files.write_json(own / SPENT, dict(spent))
    hosts.barrier()  # every shard is written before the lead reads
    if not hosts.is_lead:
        return played, dict(spent)
    found = {t.id: t for part in parts for t in read_trajectories(part, remedy=_REMEDY)}
    sums: dict[str, float] = {}
    for part in parts:
        for name, count in files.read_json(part / SPENT, remedy=_REMEDY).items():
            sums[name] = sums.get(name, 0) + count
    # Only the lead is left with these files: the others go on with their own trajectories.
    epath.Path(folder).rmtree()
    return [found[episode.id] for episode in episodes], sums
