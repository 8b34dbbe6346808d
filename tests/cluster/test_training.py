"""Training in two processes: told to end, killed, and continued by two or by one."""

import json
import re
import shutil
import signal
import time

import numpy as np
import pytest

from eef_jax.cluster import stopping
from eef_jax.cluster.heartbeat import PEER_DIED
from tests.cluster.processes import finish, pair, start, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]

TRAINER = "tests.cluster.trainer"


def finished(processes, folder):
    codes, outputs = finish(processes)
    assert set(codes) == {0}, outputs
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(row["step"], row["loss"], row["grad_norm"]) for row in rows]
    return dict(np.load(folder / "parameters.npz")), losses


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Parameters and losses of one process on two devices."""
    folder = tmp_path_factory.mktemp("alone")
    return finished([start(TRAINER, f"--folder={folder}", devices=2)], folder)


def assert_equal(found, expected):
    for name, value in expected[0].items():
        np.testing.assert_array_equal(found[0][name], value)
    assert found[1] == expected[1]


def saved_steps(folder):
    return sorted(int(path.parent.name) for path in folder.glob("training/*/manifest.json"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_process_that_is_told_to_end_saves_first(alone, tmp_path, number, code):
    process = start(TRAINER, f"--folder={tmp_path}", "--pause=0.3", devices=2)
    wait_for(tmp_path / "training/3/manifest.json", [process])
    process.send_signal(number)
    codes, outputs = finish([process])
    assert codes == [code] and "Traceback" not in outputs[0], outputs
    kept = re.search(r"kept up to step (\d+)\n\n.*: start it again\n$", outputs[0])
    assert kept, outputs
    assert saved_steps(tmp_path)[-1] == int(kept[1]) < 20
    if number is signal.SIGTERM:
        assert_equal(finished([start(TRAINER, f"--folder={tmp_path}", devices=2)], tmp_path), alone)


def test_a_signal_during_the_compilation_ends_it_and_loses_nothing(alone, tmp_path):
    process = start(TRAINER, f"--folder={tmp_path}", "--pause=0.3", devices=2)
    wait_for(tmp_path / "training/6/manifest.json", [process])
    process.kill()
    finish([process])
    kept, marker = saved_steps(tmp_path), tmp_path.with_name("compiling")
    process = start(TRAINER, f"--folder={tmp_path}", f"--compiling={marker}", devices=2)
    wait_for(marker, [process])
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    codes, outputs = finish([process])
    assert codes == [143] and outputs[0].endswith("ended by SIGTERM: start it again\n"), outputs
    assert time.monotonic() - began < stopping.GRACE_S + 10
    assert saved_steps(tmp_path) == kept
    assert_equal(finished([start(TRAINER, f"--folder={tmp_path}", devices=2)], tmp_path), alone)


def test_sigterm_to_one_saves_in_both(alone, tmp_path):
    processes = pair(TRAINER, f"--folder={tmp_path}", "--pause=0.3")
    wait_for(tmp_path / "training/3/manifest.json", processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, outputs = finish(processes)
    assert codes == [143, 143], outputs
    kept = re.search(r"kept up to step (\d+)", outputs[0])
    assert kept, outputs
    assert saved_steps(tmp_path)[-1] == int(kept[1]) < 20
    other = shutil.copytree(tmp_path, tmp_path.with_name("other"))
    assert_equal(finished(pair(TRAINER, f"--folder={tmp_path}"), tmp_path), alone)
    one_process = [start(TRAINER, f"--folder={other}", devices=2)]
    assert_equal(finished(one_process, other), alone)


def test_a_killed_process_ends_the_other_and_they_go_on(alone, tmp_path):
    processes = pair(TRAINER, f"--folder={tmp_path}", "--pause=0.3", patience=12)
    wait_for(tmp_path / "training/6/manifest.json", processes)
    processes[1].kill()
    (code, _), outputs = finish(processes)
    assert code == PEER_DIED, outputs
    assert saved_steps(tmp_path)
    assert_equal(finished(pair(TRAINER, f"--folder={tmp_path}"), tmp_path), alone)
