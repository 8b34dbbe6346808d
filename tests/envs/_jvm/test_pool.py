"""Seats under threads: bounded, exclusive, all of them used. No Java in here."""

import threading
import time

import pytest

from eef_jax.envs._jvm.game import ReplayGame
from eef_jax.envs._jvm.pool import JvmPool
from eef_jax.envs._jvm.process import JvmLost
from eef_jax.errors import EnvError
from tests.envs._jvm.counter import TASK, Counter


class Slow(Counter):
    """Notices when two threads are in it at once."""

    crowded = False
    inside = 0

    def act(self, action):
        self.inside += 1
        Slow.crowded |= self.inside > 1
        time.sleep(0.001)
        self.inside -= 1
        return super().act(action)


def play(pool, failures):
    game = ReplayGame(pool, convention="final")
    game.reset(TASK)
    for turn in range(1, 10):
        if game.step("1").observation != str(turn):
            failures.append(turn)


def test_threads_share_few_simulators_without_meeting():
    Counter.made, Slow.crowded, failures = [], False, []
    pool = JvmPool(Slow, size=3)
    threads = [threading.Thread(target=play, args=(pool, failures)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and not Slow.crowded
    assert len(Counter.made) == 3
    pool.close()
    assert not any(world.alive for world in Counter.made)


def test_a_simulator_that_does_not_start_costs_no_seat():
    broken = [True, True]

    def make():
        if broken:
            broken.pop()
            raise JvmLost("no memory")
        return Counter()

    pool = JvmPool(make, size=1)
    game = ReplayGame(pool, convention="final")
    assert game.reset(TASK) == "0"
    pool.close()
    broken[:] = [True] * 3
    with pytest.raises(EnvError, match="no memory"):
        ReplayGame(JvmPool(make, size=1), convention="final").reset(TASK)


def test_a_pool_that_is_dropped_ends_its_simulators():
    Counter.made = []
    pool = JvmPool(Counter, size=1)
    ReplayGame(pool, convention="final").reset(TASK)
    del pool
    assert not Counter.made[0].alive
