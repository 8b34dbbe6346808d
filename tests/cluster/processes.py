"""Commands as operating-system processes, alone or as one run of two that meet on loopback."""

import os
import re
import socket
import subprocess
import time

import pytest

from tests import forks


def start(module, *flags, devices=1):
    """Start a command with a number of virtual devices."""
    found = re.sub(r"device_count=\d+", f"device_count={devices}", os.environ["XLA_FLAGS"])
    return forks.Command(module, *flags, environment=os.environ | {"XLA_FLAGS": found})


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
    """Wait until there is a file, which the processes make."""
    wait_until(path.exists, processes, limit)


def wait_until(condition, processes, limit=120):
    """Wait for what the processes do; none of them may end before."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end or any(process.poll() is not None for process in processes):
            pytest.fail(f"waited in vain: {finish(processes, limit=1)}")
        time.sleep(0.05)
