"""Every documented command, program and preset, as a new user runs it (`make test-docs`)."""

import re
import shutil
import socket
import subprocess
import sys

import pytest

from tests import emulator
from tests.docs import documents, scratch

ROWS, SMALL = documents.table()
PROGRAMS = documents.programs()
LIMIT_S = 600  # for a machine that is busy with other things
pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The folder in which all commands run, one after the other."""
    return scratch.make(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def server():
    with scratch.served_expert() as url:
        yield url


@pytest.fixture(scope="module")
def shared_bucket(bucket_server):
    """The name of a bucket that all commands share."""
    return emulator.new_bucket().removeprefix("gs://")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.text or row.play)
def test_a_command_runs(row, clone, server, shared_bucket):
    if row.not_run:
        pytest.skip(f"not run, {row.not_run}: {row.text}")
    if "java" in row.small and shutil.which("java") is None:
        pytest.skip(f"NO JAVA: not run: {row.text or row.play}")
    command = documents.played(row, SMALL)
    for name, value in {"server": server, "bucket": shared_bucket, "port": free_port()}.items():
        command = command.replace(f"{{{name}}}", value)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=clone,
        env=scratch.environment(clone, **row.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
    assert "Traceback" not in done.stdout, done.stdout[-6000:]
    assert "does not provide the extra" not in done.stdout, done.stdout
    for name in row.makes:
        assert (clone / name).exists(), f"{command} made no {name}"
    assert re.search(row.prints, done.stdout), done.stdout[-6000:]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.place)
def test_a_program_runs(program, clone):
    done = subprocess.run(
        [sys.executable, "-c", documents.played_program(program)],
        cwd=clone,
        env=scratch.environment(clone),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, f"{program.place}\n{done.stderr[-6000:]}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
