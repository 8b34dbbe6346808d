"""Several processes become one run: they find each other and wait, but never for the dead.

Thin over `jax.distributed`: its coordinator (process 0) also keeps the few keys that meetings and
signs of life need. Each process watches all others; where one fails or falls silent, every other
one ends with a message that names it, whatever it is waiting for at that moment (a collective, a
meeting, a checkpoint). Knows processes; knows no stage, model or file.
"""

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from absl import flags

from eef_jax.errors import ConfigError, EefError
from eef_jax.hosts import ALONE, Hosts

PATIENCE_S = 60.0  # a process that gives no sign of life for so long is taken for dead
_DAY_MS = 24 * 3600 * 1000
_FAREWELL_S = 5.0  # a failing lead keeps its keys readable for so long
_REMEDY = "start all processes again with the same --workdir: finished stages are kept"


def define_flags() -> None:
    """Define the flags that `from_flags` reads."""
    flags.DEFINE_string("coordinator", None, "Several processes: address of process 0, HOST:PORT.")
    flags.DEFINE_integer("processes", None, "Several processes: how many.")
    flags.DEFINE_integer("process", None, "Several processes: number of this one, from 0.")
    flags.DEFINE_bool(
        "cluster", False, "Several processes: take all three from the cluster's environment."
    )
    flags.DEFINE_float(
        "peer_timeout_s", PATIENCE_S, "Silence, in seconds, that a process is taken for dead after."
    )


def from_flags() -> contextlib.AbstractContextManager[Hosts]:
    """`joined` with the values of the flags."""
    given = flags.FLAGS
    return joined(
        coordinator=given.coordinator,
        processes=given.processes,
        process=given.process,
        cluster=given.cluster,
        patience_s=given.peer_timeout_s,
    )


@contextlib.contextmanager
def joined(
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    cluster: bool = False,
    patience_s: float = PATIENCE_S,
) -> Iterator[Hosts]:
    """Be one of several processes as long as the context lasts; without arguments, the only one.

    An exception in the context ends this process at once, after the others were told: they could
    not go on without it, and leaving in good order would wait for them.

    Args:
        coordinator: address of process 0, `HOST:PORT`.
        processes: how many there are.
        process: number of this one.
        cluster: take these from the cluster's environment instead, as far as they are not given
            (TPU pods, GKE, Slurm, Open MPI).
        patience_s: silence that a process is taken for dead after, in seconds.

    Raises:
        ConfigError: part of the arguments is missing, or the processes cannot find each other.
    """
    given = (coordinator, processes, process)
    if not cluster and given == (None, None, None):
        yield ALONE
        return
    if not cluster and None in given:
        raise ConfigError(
            f"got --coordinator={coordinator} --processes={processes} --process={process}: give "
            "all three, or --cluster to take them from the cluster's environment"
        )
    client = _connect(coordinator, processes, process, patience_s)
    hosts = _Joined(client)
    watch = _Watch(client, hosts, patience_s)
    try:
        yield hosts
        hosts.meet()
    except BaseException as error:
        _print(error)
        watch.tell(f"{type(error).__name__}: {error}")
        _end()
    finally:
        watch.close()


class _Joined:
    """This process among those of a run (see `hosts.Hosts`)."""

    def __init__(self, client: Any):
        import jax

        self.process = jax.process_index()
        self.processes = jax.process_count()
        self._client = client
        self._count = 0

    @property
    def lead(self) -> bool:
        return self.process == 0

    def meet(self) -> None:
        # No time limit of its own: a stage may take hours, and the dead are the watch's affair.
        self._client.wait_at_barrier(f"eef/meet/{self._next()}", _DAY_MS * 365)

    def agree(self, value: str) -> str:
        key = f"eef/agree/{self._next()}"
        if self.lead:
            self._client.key_value_set(key, value)
            return value
        agreed: str = self._client.blocking_key_value_get(key, _DAY_MS * 365)
        return agreed

    def _next(self) -> int:
        self._count += 1
        return self._count


class _Watch:
    """A thread that gives signs of life and looks for those of the others."""

    def __init__(self, client: Any, hosts: _Joined, patience_s: float):
        self._client = client
        self._hosts = hosts
        self._patience_s = patience_s
        # Everyone reads everyone's beat: the more processes, the more seldom.
        self._pause_s = min(max(1.0, hosts.processes / 64), patience_s / 4)
        self._closing = threading.Event()
        self._seen: dict[int, tuple[str, float]] = {}
        self._thread = threading.Thread(target=self._run, name="eef-watch", daemon=True)
        self._thread.start()

    def tell(self, reason: str) -> None:
        """Tell the others that this process fails, and leave them time to hear it."""
        self._closing.set()
        with contextlib.suppress(Exception):
            me = f"{self._hosts.process}"
            self._client.key_value_set(f"eef/failed/{me}", f"{_here()}: {reason}"[:2000])
            end = time.monotonic() + _FAREWELL_S
            while self._hosts.lead and time.monotonic() < end:
                if len(self._client.key_value_dir_get("eef/heard/")) >= self._hosts.processes - 1:
                    break
                time.sleep(0.1)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        beat = 0
        while not self._closing.wait(self._pause_s if beat else 0):
            beat += 1
            try:
                trouble = self._look(beat)
            except Exception as error:
                if self._closing.is_set():
                    return
                trouble = f"the coordinator, process 0, is gone ({_first_line(error)})"
            if trouble:
                self._give_up(trouble)

    def _look(self, beat: int) -> str:
        """Give a sign of life; what is wrong with the others, if anything."""
        me = self._hosts.process
        self._client.key_value_set(f"eef/alive/{me}", str(beat), allow_overwrite=True)
        for key, reason in self._client.key_value_dir_get("eef/failed/"):
            return f"process {key.rpartition('/')[2]} failed on {reason}"
        now = time.monotonic()
        for key, value in self._client.key_value_dir_get("eef/alive/"):
            number = int(key.rpartition("/")[2])
            before, since = self._seen.get(number, ("", now))
            self._seen[number] = (value, now if value != before else since)
            if now - self._seen[number][1] > self._patience_s:
                return f"process {number} has given no sign of life for {self._patience_s:g} s"
        return ""

    def _give_up(self, trouble: str) -> None:
        me, all_of_us = self._hosts.process, self._hosts.processes
        print(f"process {me} of {all_of_us} ends: {trouble}; {_REMEDY}", file=sys.stderr)
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"eef/heard/{me}", "")
        _end()


def _connect(
    coordinator: str | None, processes: int | None, process: int | None, patience_s: float
) -> Any:
    """Connect to the coordinator; the client that meetings go through."""
    import jax
    from jax._src import distributed  # its key-value store has no public name (Orbax uses it, too)

    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            # Our own watch comes first: JAX ends the process with a stack of addresses.
            heartbeat_timeout_seconds=int(2 * patience_s + 10),
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the processes of the run did not find each other ({_first_line(error)}): check "
            "--coordinator, --processes and --process, or, with --cluster, that this is started by "
            "the cluster's launcher"
        ) from error
    return distributed.global_state.client


def _print(error: BaseException) -> None:
    if isinstance(error, EefError):
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)


def _end() -> None:
    """End the process without the leave-taking that waits for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _here() -> str:
    return socket.gethostname()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
