"""Commands as operating-system processes, alone or as one run of two that meet on loopback."""

import os
import re
import socket
import subprocess
import sys
import time

import pytest


def start(module, *flags, devices=1):
    """Start a command with a number of virtual devices."""
    environment = os.environ | {
        "XLA_FLAGS": re.sub(
            r"device_count=\d+", f"device_count={devices}", os.environ["XLA_FLAGS"]
        ),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pair(module, *flags, patience=30):
    """Start a command as two processes that find each other on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        start(
            module,
            f"--coordinator=127.0.0.1:{port}",
            "--processes=2",
            f"--process={number}",
            f"--peer_timeout_s={patience}",
            *flags,
        )
        for number in range(2)
    ]


def finish(processes, limit=120):
    """Exit codes and outputs; nothing is left running."""
    outputs = []
    for process in processes:
        try:
            outputs.append(process.communicate(timeout=limit)[0])
        except subprocess.TimeoutExpired:
            process.kill()
            outputs.append(f"{process.communicate()[0]}\nstill running after {limit} s")
    return [process.returncode for process in processes], outputs


def wait_for(path, processes, limit=120):
    end = time.monotonic() + limit
    while not path.exists():
        if time.monotonic() > end or any(process.poll() is not None for process in processes):
            pytest.fail(f"{path} was not made: {finish(processes, limit=1)}")
        time.sleep(0.05)
