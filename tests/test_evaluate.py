"""The command that evaluates a checkpoint: what it finds, what it says, how it refuses."""

import contextlib
import subprocess
import sys

import pytest
from etils import epath

from eef_jax import evaluate, pipeline
from eef_jax.errors import DataError, RolloutError
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.storage import files
from eef_jax.storage.provenance import json_values
from eef_jax.storage.workdir import find_checkpoint
from tests import toybase, toyrun


@pytest.fixture
def work(tmp_path):
    work = toyrun.make(tmp_path / "run")
    (work.root / "round_2" / "tune" / "checkpoint").mkdir()
    return work


def test_a_tune_stage_or_its_checkpoint(work):
    tune = work.root / "round_2" / "tune"
    assert find_checkpoint(tune) == find_checkpoint(tune / "checkpoint") == tune / "checkpoint"


def test_the_config_is_the_runs_own(work):
    checkpoint = find_checkpoint(work.root / "round_2" / "tune")
    assert evaluate.config_of(checkpoint) == json_values(toyrun.CONFIG)


def test_a_checkpoint_in_a_bucket(bucket):
    work = toyrun.make(f"{bucket}/run")
    files.write_text(work.root / "round_2/tune/checkpoint/arrays", "")
    checkpoint = find_checkpoint(f"{bucket}/run/round_2/tune")
    assert str(checkpoint) == f"{bucket}/run/round_2/tune/checkpoint"
    assert evaluate.config_of(checkpoint) == json_values(toyrun.CONFIG)
    with pytest.raises(DataError, match="no folder above gs://"):
        evaluate.config_of(epath.Path(f"{bucket}/elsewhere/checkpoint"))


@pytest.mark.parametrize("path", ["round_9/tune", "round_1/tune", "round_2", "config.json"])
def test_no_checkpoint_there(work, path):
    with pytest.raises(DataError, match="name a finished tune stage"):
        find_checkpoint(work.root / path)


def test_a_checkpoint_outside_any_run(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(DataError, match=r"--workdir.*--config"):
        evaluate.config_of(find_checkpoint(epath.Path(tmp_path)))


def test_describe():
    lines = evaluate.describe(toyrun.evaluated(2)).splitlines()
    assert [line.split()[0] for line in lines] == ["all", "easy", "hard"]
    assert lines[0] == (
        "all   win rate 75.0% [30.1%, 95.4%], mean reward 0.812 [0.445, 1.000], 4 episodes"
    )


def test_a_policy_that_fails_is_an_error_and_no_score(tmp_path, monkeypatch):
    def refuse(request):
        raise ConnectionError("connection refused")

    policy = ScriptedPolicy(refuse, name="unreachable")
    monkeypatch.setattr(pipeline, "evaluated", lambda *_, **__: contextlib.nullcontext(policy))
    with pytest.raises(RolloutError, match=r"2 of 2 episodes(?s:.*)connection refused"):
        evaluate.evaluate(None, toybase.config(toybase.make(tmp_path)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ConfigError: no --checkpoint was given"),
        (["--checkpoint=/nowhere/tune"], "DataError: there is no checkpoint at /nowhere/tune"),
        (["runs/demo"], "ConfigError: unexpected arguments ['runs/demo']"),
    ],
)
def test_errors_are_one_message(arguments, message):
    command = [sys.executable, "-m", "eef_jax.evaluate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(message)
    assert "Traceback" not in done.stderr
