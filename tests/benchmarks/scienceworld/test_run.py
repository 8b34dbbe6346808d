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


@pytest.mark.parametrize("paths", [1, pytest.param(2, marks=pytest.mark.load)])
def test_gold_paths_replay_identically_and_win(paths):
    assert all(measurement.within for measurement in run.measure_gold_paths(paths))


def test_steps_and_forks_are_timed():
    assert run.measure_steps(1)[0].value > 0
    assert run.measure_forks(1)[0].value > 0


def test_workers_are_timed():
    assert run.measure_workers(2)[0].value > 0


@pytest.mark.parametrize("tasks", [4, pytest.param(6, marks=pytest.mark.load)])
def test_the_gold_expert_wins_some_tasks(tasks):
    least, most = run.measure_expert(tasks)
    assert least.value == most.value
    assert 0 < least.value < 100


@pytest.mark.parametrize("episodes", [4, pytest.param(8, marks=pytest.mark.load)])
def test_every_episode_of_the_soak_has_an_outcome(episodes):
    assert all(measurement.within for measurement in run.measure_soak(episodes, 1)[:3])
