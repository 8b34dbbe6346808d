"""The lock of a work folder: processes race for it, die with it, fall silent, come back late."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from etils import epath
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import buckets, lock
from tests.properties import holds_through

HOLDER = """
import sys
from etils import epath
from eef_jax.storage import lock
with lock.hold(epath.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# Takes the locks that it is told to; between its reading of a lock and its writing it waits, so
# that the other process has read the same version.
RACER = """
import sys
from etils import epath
from eef_jax.errors import ConfigError
from eef_jax.storage import buckets, lock

def read(path, real=buckets.read):
    found = real(path)
    if waits:
        waits.pop()
        print("read", flush=True)
        sys.stdin.readline()
    return found

buckets.read = read
for line in sys.stdin:
    waits = [True]
    try:
        with lock.hold(epath.Path(line.strip())):
            print("held", flush=True)
            sys.stdin.readline()
    except ConfigError:
        print("refused", flush=True)
        sys.stdin.readline()
    print("over", flush=True)
"""
RACES = 50


def test_the_lock_of_a_live_process_holds_and_of_a_killed_one_does_not(tmp_path):
    path = epath.Path(tmp_path / "lock")
    command = [sys.executable, "-c", HOLDER, os.fspath(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(ConfigError, match=f"process {other.pid}"), lock.hold(path):
                pass
        finally:
            other.send_signal(signal.SIGKILL)
        other.wait()
        assert str(other.pid) in path.read_text()
        with lock.hold(path):
            assert json.loads(path.read_text())["pid"] == os.getpid()


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_behind(path, **change):
    """A lock that its holder did not release."""
    with lock.hold(path):
        record = lock.holder(path)
    assert lock.holder(path) == {}
    found = buckets.read(os.fspath(path))
    data = json.dumps(record | change).encode()
    assert buckets.replace(os.fspath(path), data, generation=found.generation)


@pytest.fixture
def racers():
    command = [sys.executable, "-c", RACER]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
            for _ in range(2)
        ]
        try:
            yield both
        finally:
            for process in both:
                process.kill()


def tell(processes, text):
    """Send a line to both processes, and return the line that each says to it."""
    for process in processes:
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
    return [process.stdout.readline().strip() for process in processes]


@pytest.mark.parametrize("stale", [False, True])
def test_of_two_processes_that_want_a_lock_one_goes_on(bucket, racers, stale):
    dead = dead_process()
    for number in range(RACES):
        path = epath.Path(f"{bucket}/run-{number}/lock")
        if stale:
            left_behind(path, pid=dead)
        assert tell(racers, path) == ["read", "read"]
        assert sorted(tell(racers, "take it")) == ["held", "refused"], number
        assert tell(racers, "let it go") == ["over", "over"]
        assert lock.holder(path) == {}


@pytest.mark.parametrize(
    ("change", "taken_over"),
    [
        ({"pid": "dead"}, True),
        ({"started": "another boot"}, True),  # the number was given to a new process
        ({}, False),
        ({"host": "elsewhere"}, True),  # it falls silent
        ({"pid": "dead", "namespace": "another container"}, True),
    ],
)
def test_a_lock_that_was_left_behind(bucket, monkeypatch, change, taken_over):
    monkeypatch.setattr(lock, "_STALE_S", 0.1)
    path = epath.Path(f"{bucket}/run/lock")
    left_behind(path, **{k: dead_process() if v == "dead" else v for k, v in change.items()})
    if taken_over:
        with lock.hold(path):
            assert lock.holder(path)["pid"] == os.getpid()
    else:
        with pytest.raises(ConfigError, match="wait until that process has ended"), lock.hold(path):
            pass
        assert path.exists()


def test_a_holder_that_is_elsewhere_is_waited_for(bucket, monkeypatch, caplog):
    # Its process number means nothing here: only silence shows that it is gone.
    monkeypatch.setattr(lock, "_STALE_S", 0.5)
    path = epath.Path(f"{bucket}/run/lock")
    left_behind(path, pid=dead_process(), namespace="another container")
    begun = time.monotonic()
    with caplog.at_level("INFO"), lock.hold(path):
        assert time.monotonic() - begun >= 0.5
    assert "waiting up to 0.5 s" in caplog.text


def test_the_lock_of_another_machine_that_lives_holds(bucket, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT_S", 0.02)
    monkeypatch.setattr(lock, "_STALE_S", 5.0)
    path = epath.Path(f"{bucket}/run/lock")
    with lock.hold(path):
        who = lock.holder(path)
        monkeypatch.setattr(lock.socket, "gethostname", lambda: "another")
        with pytest.raises(ConfigError, match="in use by process"), lock.hold(path):
            pass
        assert lock.holder(path) == who
    assert lock.holder(path) == {}


def test_who_has_lost_the_lock_ends_and_leaves_it_alone(bucket, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT_S", 0.02)
    path = epath.Path(f"{bucket}/run/lock")
    begun = time.monotonic()
    said = r"lost its lock: .* process 1 on elsewhere"
    with pytest.raises(ConfigError, match=said), lock.hold(path):
        path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
        time.sleep(10)
    assert time.monotonic() - begun < 5
    assert lock.holder(path) == {"host": "elsewhere", "pid": 1}


def test_an_answer_that_is_lost_is_not_taken_for_another_holder(bucket, monkeypatch):
    # A write arrives, its answer does not: the library repeats it and is told "changed".
    path = epath.Path(f"{bucket}/run/lock")
    real, losses = buckets.replace, [True]

    def lossy(*args, **kwargs):
        if losses:
            real(*args, **kwargs)
            losses.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(buckets, "replace", lossy)
    with lock.hold(path):
        assert lock.holder(path)["pid"] == os.getpid()
        losses.append(True)
    assert lock.holder(path) == {}


def test_a_bucket_that_is_not_there(bucket_server):
    path = epath.Path("gs://no-such-bucket/run/lock")
    with pytest.raises(DataError, match=f"{path} is not there"), lock.hold(path):
        pass


class Locks(RuleBasedStateMachine):
    """Several holders, of which one at most has the lock at any time."""

    def __init__(self):
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.path = epath.Path(self.root.name) / "lock"
        self.held = {}

    def teardown(self):
        for stack in self.held.values():
            stack.close()
        self.root.cleanup()

    @rule(who=st.integers(0, 2))
    def take(self, who):
        with contextlib.ExitStack() as stack:
            if self.held:
                with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
                    stack.enter_context(lock.hold(self.path))
            else:
                stack.enter_context(lock.hold(self.path))
                self.held[who] = stack.pop_all()

    @precondition(lambda self: self.held)
    @rule()
    def release(self):
        self.held.popitem()[1].close()

    @precondition(lambda self: not self.held)
    @rule(data=st.binary(max_size=20))
    def damage(self, data):
        self.path.write_bytes(data)

    @invariant()
    def its_holder_is_told(self):
        if self.held:
            assert lock.holder(self.path)["pid"] == os.getpid()


test_one_holds_it_at_most = holds_through(Locks)
