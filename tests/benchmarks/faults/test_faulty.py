"""A faulty environment: the run ends, and what no fault ended is as without faults."""

import dataclasses
import logging
import os

import pytest

from benchmarks.faults import faulty, run
from benchmarks.faults.environment import Faults, FaultyEnv
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout import loop
from eef_jax.types import Episode, Outcome
from tests import toybase
from tests.toygame import Corridor, solve

SHARES = {"hang": 0.05, "crash": 0.05, "garbage": 0.05}
WANDERER = ScriptedPolicy(lambda r: "hm" if r.attempt == r.turn else solve(r), name="wanderer")


class Corridors(Corridor):
    """More tasks than the corridor has."""

    def tasks(self, split):
        one = super().tasks(split)
        return [dataclasses.replace(one[n % 5], id=f"corridor/{split}/{n}") for n in range(40)]


def episodes(env):
    return [
        Episode(id=f"{task.id}/{n}", task=task, round=1, attempt=n, max_steps=20)
        for task in env.tasks("train")
        for n in range(3)
    ]


def play(env, orders, **options):
    played = loop.play_episodes_sync(env, WANDERER, orders, env_threads=8, **options)
    return {one.id: one for one in played}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.load)])
def test_episodes_that_no_fault_ended_are_those_of_the_clean_run(seed, caplog):
    faults = Faults(**SHARES, lasting=0.2, seed=seed)
    env = FaultyEnv(Corridors(), faults)
    clean = play(Corridors(), episodes(env))
    with caplog.at_level(logging.WARNING):
        got = play(env, episodes(env), env_timeout_s=0.3)
    faults.released.set()
    assert got.keys() == clean.keys() and all(faults.counts.values())
    ended = {i: one.outcome for i, one in got.items() if not one.outcome.completed}
    assert set(ended.values()) == {Outcome.ENV_ERROR, Outcome.ENV_TIMEOUT}
    assert 0 < len(ended) < 60
    assert [i for i in got if i not in ended and got[i] != clean[i]] == []
    assert faulty.unaffected_that_differ(clean, got.values()) == []
    assert len(caplog.records) == 3 and "failed and were repeated" in caplog.text
    forks = [
        dataclasses.replace(order, id=f"fork/{order.id}", parent=clean[order.id], fork_step=3)
        for order in episodes(env)[::3]
    ]
    assert [i for i, one in play(env, forks).items() if one.outcome.completed] != []


def test_the_same_calls_are_hit_in_every_order():
    outcomes = []
    for concurrency in (1, 30):
        faults = Faults(hang=0, crash=0.1, garbage=0.1, lasting=0.3)
        env = FaultyEnv(Corridors(), faults)
        outcomes.append(
            {i: t.outcome for i, t in play(env, episodes(env), concurrency=concurrency).items()}
        )
    assert outcomes[0] == outcomes[1]
    assert Outcome.ENV_ERROR in outcomes[0].values()


def test_an_episode_that_differs_is_found():
    (one, *_) = play(Corridors(), episodes(Corridors())[:1]).values()
    other = dataclasses.replace(one, reward=0.5)
    lost = dataclasses.replace(other, outcome=Outcome.ENV_ERROR)
    assert faulty.unaffected_that_differ({one.id: one}, [other, lost]) == [one.id]


@pytest.mark.load
@pytest.mark.processes
def test_a_run_with_faults_ends_and_differs_in_what_they_ended_alone(tmp_path, monkeypatch):
    one_device = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    monkeypatch.setenv("XLA_FLAGS", one_device)
    (tmp_path / "base").mkdir()
    settings = {"model.path": toybase.make(tmp_path / "base"), **toybase.SMALL}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    clean = run.Command(tmp_path / "clean", flags)
    clean.finish()
    faulty_run = run.Command(tmp_path / "faulty", [*flags, *faulty.FLAGS])
    faulty_run.finish()
    rows = faulty.measure(clean.workdir, faulty_run.workdir)
    assert [row.value for row in rows] == [0, 0], rows
    assert "\x1b" not in faulty_run.log().read_text()
