"""Episodes are sharded across processes; gathered, they equal those of a single process."""

import threading

import pytest

from eef_jax.cluster.hosts import SINGLE_PROCESS
from eef_jax.errors import DataError
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


def test_what_was_kept_is_put_in_order():
    order = episodes([3, 2, 1])
    kept = {e.id: toyrun.attempt(e.task, ["look"], True, id=e.id) for e in reversed(order)}
    assert [t.id for t in gather.in_order(kept, order, label="x")] == [e.id for e in order]
    del kept[order[2].id]
    with pytest.raises(DataError, match=f"x: 1 of 6 episodes are missing, '{order[2].id}'"):
        gather.in_order(kept, order, label="x")
