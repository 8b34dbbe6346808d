"""Digests change with what a run made, and with nothing else."""

import json
import sys

import jax
import numpy as np
import pytest

from benchmarks.common import digests
from eef_jax.data import tfrecord
from eef_jax.models.model import content_hash
from eef_jax.train import checkpoint
from tests.train import toy


def write_trajectory(folder, reward, commit):
    row = {"id": "a", "reward": reward, "provenance": {"commit": commit}}
    (folder / "trajectories.jsonl").write_text(json.dumps(row) + "\n")


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write_trajectory(folder, 1.0, "first")
    (folder / "train.tfrecord-00000-of-00001").write_bytes(
        tfrecord.frame(b"one") + tfrecord.frame(b"two")
    )
    metadata = checkpoint.Metadata(
        base="toy", base_hash=content_hash(toy.model().frozen), lora=toy.LORA
    )
    checkpoint.save(folder / "checkpoint", toy.model().trainable, metadata)
    return folder


def test_only_what_a_run_made_counts(workdir):
    before = digests.digests(workdir)
    write_trajectory(workdir, 1.0, "second")
    assert digests.digests(workdir) == before
    write_trajectory(workdir, 0.5, "second")
    after = digests.digests(workdir)
    assert {kind for kind in before if before[kind] != after[kind]} == {"trajectories"}


def test_payloads_are_told_apart(workdir):
    before = digests.digests(workdir)["tfrecords"]
    path = workdir / "train.tfrecord-00000-of-00001"
    path.write_bytes(tfrecord.frame(b"onet") + tfrecord.frame(b"wo"))
    assert digests.digests(workdir)["tfrecords"] != before


def test_other_weights_have_another_digest(workdir, tmp_path):
    before = digests.digests(workdir)["checkpoints"]
    metadata = checkpoint.read_metadata(workdir / "checkpoint")
    other = jax.tree.map(np.zeros_like, toy.model().trainable)
    checkpoint.save(workdir / "other/checkpoint", other, metadata)
    assert digests.digests(workdir)["checkpoints"] != before


def test_the_command_compares(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["digests", str(workdir)])
    digests.main()
    expected = tmp_path / "expected.json"
    expected.write_text(capsys.readouterr().out)
    monkeypatch.setattr(sys, "argv", ["digests", str(workdir), f"--expect={expected}"])
    digests.main()
    write_trajectory(workdir, 0.0, "second")
    with pytest.raises(SystemExit, match=r"not as in .*: trajectories"):
        digests.main()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a finished run's work folder"):
        digests.digests(tmp_path)
