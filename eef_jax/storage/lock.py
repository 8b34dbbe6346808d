"""A lock on a work folder, so that two runs never write the same files.

On a local disk it is a flock, which the kernel releases when the process dies. A bucket has no
locks: there the lock is an object that its holder rewrites periodically. It is taken over when it
names a dead process of this machine, or when another machine stops rewriting it (a preempted
machine leaves its lock behind).
"""

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import buckets, files

_BEAT_S = 20.0  # how often a lock in a bucket is rewritten
_STALE_S = 90.0  # a lock that is not rewritten for this long is stale; no clocks are compared

_log = logging.getLogger(__name__)


def holder(path: epath.Path) -> dict[str, Any]:
    """The holder of the lock at `path`: host, pid, start; constant while held.

    {} if nobody ever held it, or its last holder in a bucket released it.
    """
    return _who(_read(path))


@contextlib.contextmanager
def hold(path: epath.Path) -> Iterator[None]:
    """Hold the lock at `path` (its folder exists) as long as the context lasts.

    Raises:
        ConfigError: another live process holds it; the message names process, machine and time.
    """
    keeper = _hold_local if files.is_local(path) else _hold_remote
    with keeper(path):
        yield


@contextlib.contextmanager
def _hold_local(path: epath.Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path, _read(path)) from None
        os.truncate(handle, 0)
        os.write(handle, json.dumps(_owner()).encode())
        # The file is not deleted: a process with the old file open and a process that creates a new
        # one could then both hold the lock.
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _hold_remote(path: epath.Path) -> Iterator[None]:
    lock = _RemoteLock(os.fspath(path))
    beats = threading.Thread(target=lock.keep, name="eef-lock", daemon=True)
    beats.start()
    try:
        yield
    except KeyboardInterrupt:
        if lock.lost:
            raise ConfigError(f"lost its lock: {_in_use(path, holder(path))}") from None
        raise
    finally:
        lock.closing.set()
        beats.join()
        lock.release()


class _RemoteLock:
    """A lock in a bucket that this process holds.

    Every change of it, by whomever, replaces the version that was read before, or fails. So of two
    processes that find it free or stale one goes on, and a holder that was suspended and lost its
    lock notices. A released lock is an empty record rather than no object.

    Args:
        path: the object.

    Raises:
        ConfigError: another live process holds it.
    """

    def __init__(self, path: str):
        self.path = path
        self.closing = threading.Event()
        self.lost = False
        self._mine = _owner()
        self._generation = _free_version(path)
        if not self._write(self._mine):
            raise _in_use(epath.Path(path), holder(epath.Path(path)))

    def keep(self) -> None:
        """Renew the lock until it is released; interrupt the run if another process took it."""
        number = 0
        while not self.closing.wait(_BEAT_S):
            number += 1
            with contextlib.suppress(DataError):  # a transient failure; the next beat tries again
                if not self._write(self._mine | {"beat": number}):
                    self.lost = True
                    # Not _thread.interrupt_main: it wakes no thread that sleeps or waits.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return

    def release(self) -> None:
        """Let others take the lock; a lock that cannot be reached becomes stale by itself."""
        if not self.lost:
            with contextlib.suppress(DataError):
                self._write({})

    def _write(self, record: dict[str, Any]) -> bool:
        """Replace the record that this process knows of; False if another one has replaced it."""
        data = json.dumps(record).encode()
        written = buckets.replace(self.path, data, generation=self._generation)
        if written is None:
            # An earlier write may have arrived although its answer did not.
            found = buckets.read(self.path)
            if _who(_record(found.data)) != self._mine:
                return False
            written = buckets.replace(self.path, data, generation=found.generation)
        self._generation = written or 0
        return written is not None


def _free_version(path: str) -> int:
    """The generation of a lock that may be taken: there is none, or it is released or stale.

    Waits up to `_STALE_S` to see whether a holder on another machine still renews it.
    """
    found = buckets.read(path)
    record = _record(found.data)
    if not record or _is_stale(record):
        return found.generation
    if _is_here(record):
        raise _in_use(epath.Path(path), record)
    _log.info(
        "%s is %s: waiting up to %g s to see whether that is alive",
        path.rpartition("/")[0],
        _holding(record),
        _STALE_S,
    )
    end = time.monotonic() + _STALE_S
    while time.monotonic() < end:
        time.sleep(_STALE_S / 10)
        now = buckets.read(path)
        if not _record(now.data):
            return now.generation
        if now.generation != found.generation:
            raise _in_use(epath.Path(path), _record(now.data))
    return found.generation


def _who(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "beat"}


def _owner() -> dict[str, Any]:
    pid = os.getpid()
    return _machine() | {
        "pid": pid,
        "started": _started(pid),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "id": uuid.uuid4().hex,
    }


def _machine() -> dict[str, Any]:
    """Where process numbers mean the same: containers may share the name of their machine."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = None
    return {"host": socket.gethostname(), "namespace": namespace}


def _is_here(record: dict[str, Any]) -> bool:
    return all(record.get(name) == value for name, value in _machine().items())


def _read(path: epath.Path) -> dict[str, Any]:
    try:
        return _record(path.read_bytes())
    except OSError:
        return {}


def _record(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_stale(record: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine that is gone."""
    if not _is_here(record):
        return False
    pid = record.get("pid")
    try:
        os.kill(int(str(pid)), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    # The pid may have been reused by a new process.
    return _started(int(str(pid))) != record.get("started")


def _started(pid: int) -> str | None:
    """Start of a process as boot id and clock ticks, unique per process; None without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The command name, in parentheses, may contain spaces; the start time is field 22.
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return f"{boot}/{ticks}"


def _in_use(path: epath.Path, record: dict[str, Any]) -> ConfigError:
    return ConfigError(
        # Not "delete the lock": a dead process has none on a disk, and loses one in a bucket.
        f"{path.parent} is {_holding(record)}: wait until that process has ended (in a bucket "
        f"{_STALE_S:g} s longer), or take another --workdir"
    )


def _holding(record: dict[str, Any]) -> str:
    who = f"process {record.get('pid', '?')} on {record.get('host', 'an unknown machine')}"
    return f"in use by {who} since {record.get('since', 'an unknown time')}"
