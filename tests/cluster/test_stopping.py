"""Work that is told to end, ends in good order, or at once when it is told again."""

import signal
import subprocess
import sys
import time

import pytest

from eef_jax.cluster import stopping

WORKER = """
import time
from eef_jax import cli
from eef_jax.cluster import stopping

stopping.GRACE_S = 0.5

def work():
    with stopping.cooperative():
        print("ready", flush=True)
        {body}
    stopping.raise_if_requested()
    print("went on", flush=True)

cli.run(work, interrupted="start it again")
"""
ASKS = "while not stopping.requested(): time.sleep(0.01)\n        time.sleep(1); print('kept')"
DEAF = "time.sleep(600)"


def started(body):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_cooperative_work_keeps_what_it_has(number, code):
    process = started(ASKS)  # it takes longer than others are waited for
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (code, "kept\n")
    assert errors.strip().endswith(": start it again") and errors.count("\n") == 2


def test_the_second_signal_ends_it_at_once():
    process = started(DEAF)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # a launcher's and a terminal's are one
    time.sleep(1.2)  # longer than it is waited for, and than two signals are taken for one
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_a_request_of_another_process_is_as_good_as_a_signal():
    body = "stopping.request(stopping.signal.SIGTERM)\n        " + ASKS
    _, errors = started(body).communicate(timeout=30)
    assert "ended by SIGTERM: start it again" in errors


def test_without_handlers_a_request_is_noted_alone(monkeypatch):
    monkeypatch.setattr(stopping, "_state", stopping._State())
    stopping.raise_if_requested()
    stopping.request(signal.SIGINT)
    assert stopping.requested() is signal.SIGINT
    with pytest.raises(stopping.Stopped, match="SIGINT"):
        stopping.raise_if_requested()
