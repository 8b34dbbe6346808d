"""Saves of an unfinished training: a run that goes on from one ends in the same bits."""

import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

from eef_jax.cluster import stopping
from eef_jax.config.sections import LoraConfig
from eef_jax.sharding import make_mesh
from eef_jax.storage.metrics import MetricsWriter
from eef_jax.train import checkpoint
from eef_jax.train.loop import fit
from eef_jax.train.saves import Saves
from tests.train import toy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_steps")]

LORA = LoraConfig(rank=4, dropout=0.2, targets=("q_proj", "down_proj"))
STEPS = 9


class Killed(Exception):
    """Training was interrupted."""


def train(folder, *, every=2, die_at=0, at=None, mesh=None, made_from="data", seconds=0.0):
    """Train with saves; returns parameters and facts."""
    folder = epath.Path(folder)
    metadata = checkpoint.Metadata(base="toy", base_hash="0", facts={"from": made_from})
    with (
        MetricsWriter(folder / "metrics.jsonl") as metrics,
        Saves(
            folder / "training",
            metadata,
            every_s=seconds,
            every_steps=every,
            metrics=metrics,
        ) as saves,
    ):

        def log(step, scalars):
            metrics.log(step, scalars)
            if at is not None:
                at(step)
            if step == die_at:
                raise Killed

        return fit(
            toy.model(LORA),
            toy.batches(batch_size=4),
            mesh=mesh or toy.one_device(),
            optimizer=toy.OPTIMIZER,
            steps=STEPS,
            accumulation_steps=2 if mesh is None else 1,
            progress=False,
            log=log,
            saves=saves,
        )


def interrupted(folder, **options):
    with pytest.raises(Killed):
        train(folder, die_at=7, **options)


def kept(folder):
    found = (epath.Path(folder) / "training").iterdir()
    return sorted(int(path.name) for path in found if path.name.isdigit())  # others are unfinished


def lines(folder):
    """The metrics without what depends on time."""
    text = (epath.Path(folder) / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in row.items() if name != "tokens_per_s"} for row in rows]


def timeless(facts):
    return {name: value for name, value in facts.items() if name not in ("seconds", "tokens_per_s")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Parameters, facts and metrics of a run that nothing interrupted or saved."""
    folder = tmp_path_factory.mktemp("whole")
    parameters, facts = train(folder, every=0)
    return parameters, facts, lines(folder)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What a run left that was interrupted after step 7: saves of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("left")
    interrupted(folder)
    return folder


@pytest.fixture
def copy(left, tmp_path):
    return shutil.copytree(left, tmp_path / "copy")


def assert_equal(found, folder, whole):
    parameters, facts = found
    jax.tree.map(np.testing.assert_array_equal, parameters, whole[0])
    assert timeless(facts) == timeless(whole[1])
    assert lines(folder) == whole[2]


def test_after_an_exception_it_ends_in_the_same_bits(copy, whole, caplog):
    assert kept(copy) == [4, 6]
    with caplog.at_level(logging.INFO):
        assert_equal(train(copy), copy, whole)
    assert "training goes on after step 6" in caplog.text


@pytest.mark.processes
def test_after_a_kill_it_ends_in_the_same_bits(tmp_path, whole):
    program = (
        "import os, signal, sys; from tests.train import test_saves\n"
        "kill = lambda step: step == 7 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "test_saves.train(sys.argv[1], at=kill)"
    )
    died = subprocess.run(
        [sys.executable, "-c", program, os.fspath(tmp_path)], capture_output=True, text=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert kept(tmp_path)
    assert_equal(train(tmp_path), tmp_path, whole)


def test_a_damaged_newest_save_falls_back_to_the_one_before(copy, whole, caplog):
    path = next((copy / "training/6").glob("training/d/*"))
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 4]) + data[-1:])
    with caplog.at_level(logging.INFO):
        assert_equal(train(copy), copy, whole)
    assert "the save of step 6 is not used" in caplog.text
    assert "training goes on after step 4" in caplog.text


def usable(folder, *, made_from="data"):
    """The save that a run would go on from."""
    metadata = checkpoint.Metadata(base="toy", base_hash="0", facts={"from": made_from})
    metrics = MetricsWriter(folder / "metrics.jsonl")
    return Saves(folder / "training", metadata, metrics=metrics).newest()


def test_every_file_of_a_save_is_checked(copy, caplog):
    for path in sorted(one for one in (copy / "training/6").rglob("*") if one.is_file()):
        again = shutil.copytree(copy, copy.with_name("again"))
        changed = again / path.relative_to(copy)
        data = changed.read_bytes()
        changed.write_bytes(data[:-2] + bytes([data[-2] ^ 4]) + data[-1:])
        assert usable(again) == 4, path
        assert kept(again) == [4]
        shutil.rmtree(again)


def test_without_a_manifest_a_save_does_not_count(copy):
    for step in (4, 6):
        (copy / f"training/{step}/manifest.json").unlink()
    assert usable(copy) == 0 and kept(copy) == []


def test_changed_metrics_are_not_continued(copy, caplog):
    path = copy / "metrics.jsonl"
    path.write_text(path.read_text().replace("0", "1", 1))
    assert usable(copy) == 0
    assert "metrics.jsonl is not as it was" in caplog.text


def test_saves_of_other_data_are_not_used(copy, caplog):
    assert usable(copy, made_from="other data") == 0
    assert "it was made from another from" in caplog.text


def test_another_mesh_goes_on(copy, whole):
    parameters, facts = train(copy, mesh=make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    jax.tree.map(
        # Sums in another order; the same inputs are dropped without micro-batches.
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        parameters,
        whole[0],
    )
    assert facts["steps"] == STEPS and facts["tokens"] == whole[1]["tokens"]
    assert lines(copy)[:6] == whole[2][:6]


def test_a_bucket_is_like_a_disk(bucket, whole):
    interrupted(f"{bucket}/tune")
    assert kept(f"{bucket}/tune") == [4, 6]
    assert_equal(train(f"{bucket}/tune"), f"{bucket}/tune", whole)


def test_a_save_that_cannot_be_written_is_said_and_the_next_one_is_good(tmp_path, whole, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def no_space(step):
        # Arrays are larger than this, metrics and what the test prints are smaller.
        size = 1500 if step == 3 else limits[0]
        if step in (3, 5):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    interrupted(tmp_path, at=no_space)
    assert re.search("the save of step [24] failed .*File too large", caplog.text)
    assert kept(tmp_path)[-1] == 6  # step 2's may have been under way
    assert_equal(train(tmp_path), tmp_path, whole)


def test_a_full_disk_is_said(tmp_path, whole, caplog, monkeypatch):
    from eef_jax.storage import manifest

    write = manifest.write

    def full(folder, facts):
        if folder.name == "6":
            raise OSError(28, "No space left on device")
        return write(folder, facts)

    monkeypatch.setattr(manifest, "write", full)
    interrupted(tmp_path)
    assert "the save of step 6 failed ([Errno 28] No space left on device)" in caplog.text
    assert kept(tmp_path) == [4]
    assert_equal(train(tmp_path), tmp_path, whole)


def test_a_request_to_stop_saves_first(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(stopping, "requested", lambda: None)

    def stop(step):
        if step == 4:
            monkeypatch.setattr(stopping, "requested", lambda: signal.SIGTERM)

    with pytest.raises(stopping.Stopped) as stopped:
        train(tmp_path, every=0, at=stop)
    assert stopped.value.exit_code == 143
    assert kept(tmp_path) in ([4], [5])
    monkeypatch.setattr(stopping, "requested", lambda: None)
    assert_equal(train(tmp_path, every=0), tmp_path, whole)


def test_saves_by_time_begin_after_the_first_interval(tmp_path, whole):
    interrupted(tmp_path, every=0, seconds=1e-9)
    before = kept(tmp_path)
    assert before
    assert_equal(train(tmp_path, every=0, seconds=3600), tmp_path, whole)
    assert kept(tmp_path) == before
