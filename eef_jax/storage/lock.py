"""A lock on a work folder, so that two runs never write the same files.

On a local disk it is a flock, which the kernel releases when the process dies. An object store has
no locks: there the lock is a file that its holder rewrites periodically. It is taken over when it
names a dead process of this machine, or when another machine stops rewriting it (a preempted
machine leaves its lock behind).
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from eef_jax.errors import ConfigError
from eef_jax.storage import files

_BEAT_S = 20.0  # how often a lock in an object store is rewritten
_STALE_S = 90.0  # a lock that is not rewritten for this long is stale; no clocks are compared


def holder(path: epath.Path) -> dict[str, Any]:
    """The holder of the lock at `path`: host, pid and start; constant while held, {} if free."""
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
    if path.exists() and not (_is_stale(found := _read(path)) or _is_silent(path, found)):
        raise _in_use(path, found)
    mine = _owner()
    path.write_text(json.dumps(mine))
    if (found := _read(path)) != mine:  # another process wrote it at the same time
        raise _in_use(path, found)
    closing = threading.Event()
    beats = threading.Thread(target=_beat, args=(path, mine, closing), name="eef-lock", daemon=True)
    beats.start()
    try:
        yield
    finally:
        closing.set()
        beats.join()
        if holder(path) == mine:
            path.unlink()


def _beat(path: epath.Path, mine: dict[str, Any], closing: threading.Event) -> None:
    """Rewrite the lock periodically, until it is released or another process has taken it."""
    number = 0
    while not closing.wait(_BEAT_S):
        number += 1
        with contextlib.suppress(OSError):  # a transient failure; the next beat tries again
            if holder(path) == mine:
                path.write_text(json.dumps(mine | {"beat": number}))


def _is_silent(path: epath.Path, found: dict[str, Any]) -> bool:
    """Whether another machine has stopped rewriting its lock; waits up to `_STALE_S` to tell."""
    if found.get("host") == socket.gethostname():
        return False
    end = time.monotonic() + _STALE_S
    while time.monotonic() < end:
        time.sleep(_STALE_S / 10)
        if path.exists() and _read(path) != found:
            return False
    return True


def _who(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "beat"}


def _owner() -> dict[str, Any]:
    pid = os.getpid()
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "since": since}


def _read(path: epath.Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_stale(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine that is gone."""
    if holder.get("host") != socket.gethostname():
        return False
    pid = holder.get("pid")
    try:
        os.kill(int(str(pid)), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    # The pid may have been reused by a new process.
    return _started(int(str(pid))) != holder.get("started")


def _started(pid: int) -> str | None:
    """Start of a process as boot id and clock ticks, unique per process; None without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The command name, in parentheses, may contain spaces; the start time is field 22.
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return f"{boot}/{ticks}"


def _in_use(path: epath.Path, holder: dict[str, Any]) -> ConfigError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown machine')}"
    return ConfigError(
        f"{path.parent} is in use by {who} since {holder.get('since', 'an unknown time')}: wait "
        f"for it or take another --workdir. If that process is surely gone, delete {path}"
    )
