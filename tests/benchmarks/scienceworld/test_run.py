"""Each part of the benchmark runs on one or two paths; times are not checked."""

import importlib.util
import shutil

import pytest

from benchmarks.scienceworld import run

if importlib.util.find_spec("scienceworld") is None:
    pytest.skip("the package scienceworld is not installed", allow_module_level=True)
if shutil.which("java") is None:
    pytest.skip("there is no java on the path", allow_module_level=True)


pytestmark = pytest.mark.java


@pytest.fixture(autouse=True)
def short(recycled_jvms, monkeypatch):
    """Only task types with short solutions."""
    make = run.make
    few = {"tasks": "lifespan-*"}
    monkeypatch.setattr(run, "make", lambda **fields: make(**{**fields, **few}))


def test_gold_paths_replay_identically_and_win():
    assert all(measurement.within for measurement in run.measure_gold_paths(2))


def test_steps_and_forks_are_timed():
    assert run.measure_steps(1)[0].value > 0
    assert run.measure_forks(1)[0].value > 0


def test_workers_are_timed():
    assert run.measure_workers(2)[0].value > 0


def test_the_gold_expert_wins_some_tasks():
    least, most = run.measure_expert(6)
    assert least.value == most.value
    assert 0 < least.value < 100


def test_every_episode_of_the_soak_has_an_outcome():
    assert all(measurement.within for measurement in run.measure_soak(8, 1)[:3])
