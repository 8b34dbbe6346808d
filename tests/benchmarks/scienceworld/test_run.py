"""The benchmark's parts measure what they say, on a path or two; figures are not judged here."""

import importlib.util
import shutil

import pytest

from benchmarks.scienceworld import run

if importlib.util.find_spec("scienceworld") is None:
    pytest.skip("the package scienceworld is not installed", allow_module_level=True)
if shutil.which("java") is None:
    pytest.skip("there is no java on the path", allow_module_level=True)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Types of few steps in place of all of them."""
    make = run.make
    few = {"tasks": "lifespan-*"}
    monkeypatch.setattr(run, "make", lambda **fields: make(**{**fields, **few}))


def test_gold_paths_replay_and_win():
    assert all(figure.within for figure in run.gold_figures(2))


def test_steps_and_forks_are_timed():
    assert run.step_figures(1)[0].value > 0
    assert run.branch_figures(1)[0].value > 0


def test_workers_are_timed():
    assert run.worker_figures(2)[0].value > 0


def test_the_expert_wins_and_fails():
    least, most = run.expert_figures(6)
    assert least.value == most.value
    assert 0 < least.value < 100


def test_a_soak_counts_every_episode():
    assert all(figure.within for figure in run.soak_figures(8, 1)[:3])
