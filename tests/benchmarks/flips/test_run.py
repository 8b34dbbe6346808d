"""A short version of the benchmark, on a small run: no flip is silent or ends in a traceback."""

import os

import numpy as np
import pytest

from benchmarks.flips import run
from eef_jax import pipeline
from eef_jax.learner.placement import Placement
from tests import toybase

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flips")
    base = toybase.make(tmp_path_factory.mktemp("base"))
    config = toybase.config(base, ("train.epochs", "4"))
    pipeline.run(config, os.fspath(folder / "finished"))
    run.interrupt(config, folder / "finished", folder / "unfinished")
    return run.Subject(
        finished=folder / "finished",
        unfinished=folder / "unfinished",
        placement=Placement(config),
    )


def test_every_kind_of_file_is_known_and_flipped(subject):
    found = subject.files()
    assert set(found) == set(run.KINDS.values())
    outcomes = run.measure(subject, 2 * len(found))
    assert {kind: set(one) for kind, one in outcomes.items()} == {k: {"detected"} for k in found}
    assert "| all | " in run.table(outcomes)


def test_a_reader_that_checks_nothing_would_be_seen(subject, monkeypatch):
    path, rng = subject.finished / "config.json", np.random.default_rng(0)
    before, found = path.read_bytes(), []

    def fails(*_):
        found.append(path.read_bytes())
        raise IndexError

    monkeypatch.setattr(run.Subject, "read", lambda *_: False)
    assert run.flip(subject, "config.json", path, rng) == "silent"
    monkeypatch.setattr(run.Subject, "read", fails)
    assert run.flip(subject, "config.json", path, rng) == "IndexError"
    assert sum(a != b for a, b in zip(found[0], before, strict=True)) == 1
    assert path.read_bytes() == before


def test_a_reader_that_refuses_everything_would_be_seen(subject, monkeypatch):
    monkeypatch.setattr(run.Subject, "read", lambda *_: True)
    with pytest.raises(AssertionError, match="is refused as it is"):
        run.measure(subject, 1)
