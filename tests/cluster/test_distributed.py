"""Two operating-system processes on loopback make the run that one process makes."""

import json
import signal
import socket

import jax
import numpy as np
import pytest

from eef_jax.cluster.distributed import connect
from eef_jax.cluster.heartbeat import FAILED, PEER_DIED
from eef_jax.errors import ConfigError
from eef_jax.models.config import ModelOptions
from eef_jax.models.huggingface import folder as hf
from eef_jax.storage.trajectories import read_trajectories
from eef_jax.storage.workdir import CHECKPOINT
from eef_jax.train import checkpoint
from tests import emulator, toybase
from tests.cluster.processes import finish, pair, start, wait_for, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow]

STAGES = ["expert", "round_0/select", "round_0/tune", "round_0/evaluate"]
STAGES += [f"round_1/{kind}" for kind in ("explore", "select", "tune", "evaluate")]
SETTINGS = {
    **toybase.SMALL,
    "rollout_mesh.data": -1,  # no sum is split, so that none is taken in another order
    "rollout_mesh.tensor": 1,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return toybase.make(tmp_path_factory.mktemp("base"))


def flags_of(base, workdir):
    settings = {"model.path": base} | SETTINGS
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    return ["--config=configs/webshop.py:tiny", f"--workdir={workdir}", *overrides]


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    """The run of one process on two devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    codes, outputs = finish([start("eef_jax.main", *flags_of(base, workdir), devices=2)])
    assert codes == [0], outputs
    return workdir


@pytest.fixture(scope="module")
def together(base, tmp_path_factory):
    """The run of two processes with a device each, ended twice in the middle and started again.

    One process is killed, and at the next start the other one is told to end while they explore;
    each time the process that is left has to end by itself.
    """
    workdir = tmp_path_factory.mktemp("together") / "run"
    killed = pair("eef_jax.main", *flags_of(base, workdir), patience=12)
    wait_for(workdir / "round_0/tune/manifest.json", killed)
    killed[1].kill()
    (code, _), (last_words, _) = finish(killed, limit=60)
    assert code == PEER_DIED and not (workdir / "report.md").exists()
    told = pair("eef_jax.main", *flags_of(base, workdir))
    wait_for(workdir / "round_1/explore/parts/episodes", told)
    told[0].send_signal(signal.SIGTERM)
    codes, outputs = finish(told, limit=60)
    assert codes == [143, 143], outputs
    assert not (workdir / "report.md").exists()
    codes, outputs = finish(pair("eef_jax.main", *flags_of(base, workdir)))
    assert codes == [0, 0], outputs
    return workdir, outputs, last_words


def test_trajectories_are_equal_bit_for_bit(alone, together):
    for stage in ("expert", "round_0/evaluate", "round_1/explore", "round_1/evaluate"):
        one, two = (read_trajectories(run / stage) for run in (alone, together[0]))
        assert one == two, stage
        assert any(step.logprobs for t in two for step in t.steps) == (stage != "expert")
        assert sorted(p.name for p in (together[0] / stage).iterdir()) == sorted(
            p.name for p in (alone / stage).iterdir()
        )


def test_losses_and_weights_are_equal(alone, together, base):
    for stage in ("round_0/tune", "round_1/tune"):
        weights = []
        for run in (alone, together[0]):
            note = checkpoint.read_metadata(run / stage / CHECKPOINT)
            like = hf.load(base, ModelOptions(lora=note.lora)).trainable
            at = run / stage / CHECKPOINT
            stored, _ = checkpoint.load_trainable(at, like, base_hash=note.base_hash)
            weights.append(list(map(np.asarray, jax.tree.leaves(stored))))
        for left, right in zip(*weights, strict=True):
            np.testing.assert_array_equal(left, right)
        one, two = (
            [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
            for run in (alone, together[0])
        )
        assert [row["loss"] for row in one] == [row["loss"] for row in two]


def test_only_the_lead_speaks(together):
    workdir, (lead, other), _ = together
    assert "win rate" in lead and "round_1/evaluate" in lead
    assert "work folder" in lead and "to do" in lead
    assert "rollout engine: compiled in" in lead and "tune round 1: compiled in" in lead
    assert "evaluate round 1:" in lead and "evaluate round 1:" not in other
    assert "win rate" not in other and "round_1/evaluate" not in other
    assert (workdir / "report.md").exists()


def test_who_is_left_alone_ends_and_says_why(together):
    last_words = together[2]
    assert "process 1 has given no sign of life" in last_words
    assert "start all processes again with the same --workdir" in last_words


def test_a_failure_is_told_to_the_others(base, tmp_path):
    # The second process is started with another config.
    left, right = flags_of(base, tmp_path / "run"), flags_of(base, tmp_path / "run")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    processes = [
        start("eef_jax.main", *common, "--process=0", *left),
        start("eef_jax.main", *common, "--process=1", *right, "--config.seed=9"),
    ]
    codes, (lead, other) = finish(processes)
    assert codes == [FAILED, FAILED]
    assert "start all processes with the same command" in other
    assert "process 0 of 2 ends: process 1 failed" in lead and "ConfigError" in lead


def together_of(wait):
    """Two processes that have met, and wait for each other."""
    processes = pair("tests.cluster.member", f"--wait={wait}", patience=3)
    wait_until(lambda: all("together\n" in process.said() for process in processes), processes)
    return processes


def test_a_collective_that_loses_its_peer_asks_for_a_restart():
    lead, other = together_of("collective")
    other.kill()
    codes, (said, _) = finish([lead, other], limit=60)
    assert codes[0] == PEER_DIED, said
    assert "process 1 has given no sign of life" in said


def test_an_interrupt_ends_all_processes_and_the_lead_says_how_to_go_on():
    lead, other = together_of("sleep")
    lead.send_signal(signal.SIGINT)
    codes, (said, silent) = finish([lead, other], limit=60)
    assert codes == [130, 143]
    assert said.partition("together\n")[2].strip() == "interrupted: start it again"
    assert silent.partition("together\n")[2].strip() == ""


def test_half_given_flags_are_refused():
    with pytest.raises(ConfigError, match="give all three"), connect(processes=2):
        pass


def test_without_flags_there_is_one_process():
    with connect() as hosts:
        assert hosts.is_lead and hosts.process_count == 1 and hosts.broadcast("mine") == "mine"


def test_a_finished_run_works_where_it_is_copied_to(alone, base, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    texts = [p for p in alone.rglob("*") if p.suffix in (".json", ".jsonl", ".md")]
    assert texts and not [p for p in texts if str(alone) in p.read_text()]
    copy = emulator.upload(alone, f"{bucket}/copy")
    commands = [
        start("eef_jax.main", *flags_of(base, copy), devices=2),
        start("eef_jax.evaluate", f"--checkpoint={copy}/round_1/tune", devices=2),
    ]
    codes, (again, evaluated) = finish(commands)
    assert codes == [0, 0], (again, evaluated)
    assert "round_1/evaluate" not in again and "win rate" in again  # nothing was done again
    assert f"{copy}/round_1/tune/checkpoint on the test tasks" in evaluated
