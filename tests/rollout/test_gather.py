"""Episodes are sharded across processes; gathered, they equal those of a single process."""

import threading

from eef_jax.cluster.hosts import SINGLE_PROCESS
from eef_jax.rollout import gather
from eef_jax.types import Episode
from tests import toyrun


class Threads:
    """Processes of a run played by threads."""

    def __init__(self, process, barrier):
        self.process_index, self.process_count, self._barrier = process, barrier.parties, barrier

    @property
    def is_lead(self):
        return self.process_index == 0

    def barrier(self):
        self._barrier.wait(timeout=10)


def episodes(counts):
    """The given number of episodes of each task, interleaved."""
    tasks = toyrun.tasks("train", len(counts))
    made = [
        Episode(id=f"{task.id}/{n}", task=task, round=1, attempt=n, max_steps=9)
        for task, count in zip(tasks, counts, strict=True)
        for n in range(count)
    ]
    return made[::2] + made[1::2]


def test_shards_are_disjoint_complete_and_keep_tasks_together():
    order = episodes([5, 1, 1, 4, 2, 3])
    barrier = threading.Barrier(3)
    shares = [gather.shard_episodes(order, Threads(number, barrier)) for number in range(3)]
    assert sorted(e.id for part in shares for e in part) == sorted(e.id for e in order)
    homes = [{e.task.id for e in part} for part in shares]
    assert not (homes[0] & homes[1] or homes[1] & homes[2] or homes[0] & homes[2])
    assert sorted(map(len, shares)) == [5, 5, 6]
    assert gather.shard_episodes(order, SINGLE_PROCESS) == order


def test_the_lead_gathers_all_trajectories_in_episode_order(tmp_path):
    order, barrier = episodes([3, 2, 1]), threading.Barrier(2)
    played, results = [toyrun.attempt(e.task, ["look"], True, id=e.id) for e in order], {}

    def process(number):
        hosts = Threads(number, barrier)
        ids = {e.id for e in gather.shard_episodes(order, hosts)}
        mine = [t for t in played if t.id in ids]
        results[number] = gather.gather_trajectories(
            tmp_path / "parts", order, mine, {"tokens": len(mine)}, hosts
        )

    threads = [threading.Thread(target=process, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == (played, {"tokens": 6})
    assert not (tmp_path / "parts").exists()
