"""Several processes become one run: they find each other and wait, but never for the dead.

Thin over `jax.distributed`: its coordinator (process 0) also keeps the few keys that meetings and
signs of life (`watch`) need. Knows processes; knows no stage, model or file.
"""

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from absl import flags

from eef_jax.cluster.heartbeat import Heartbeat, end, first_line
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.errors import ConfigError, EefError

PEER_TIMEOUT_S = 60.0  # a process that gives no sign of life for so long is taken for dead
_DAY_MS = 24 * 3600 * 1000


def define_flags() -> None:
    """Define the flags that `from_flags` reads."""
    flags.DEFINE_string("coordinator", None, "Several processes: address of process 0, HOST:PORT.")
    flags.DEFINE_integer("processes", None, "Several processes: how many.")
    flags.DEFINE_integer("process", None, "Several processes: number of this one, from 0.")
    flags.DEFINE_bool(
        "cluster", False, "Several processes: take all three from the cluster's environment."
    )
    flags.DEFINE_float(
        "peer_timeout_s",
        PEER_TIMEOUT_S,
        "Silence, in seconds, that a process is taken for dead after.",
    )


def from_flags() -> contextlib.AbstractContextManager[Hosts]:
    """`connect` with the values of the flags."""
    given = flags.FLAGS
    return connect(
        coordinator=given.coordinator,
        processes=given.processes,
        process=given.process,
        cluster=given.cluster,
        timeout_s=given.peer_timeout_s,
    )


@contextlib.contextmanager
def connect(
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    cluster: bool = False,
    timeout_s: float = PEER_TIMEOUT_S,
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
        timeout_s: silence that a process is taken for dead after, in seconds.

    Raises:
        ConfigError: part of the arguments is missing, or the processes cannot find each other.
    """
    given = (coordinator, processes, process)
    if not cluster and given == (None, None, None):
        yield SINGLE_PROCESS
        return
    if not cluster and None in given:
        raise ConfigError(
            f"got --coordinator={coordinator} --processes={processes} --process={process}: give "
            "all three, or --cluster to take them from the cluster's environment"
        )
    client = _connect(coordinator, processes, process, timeout_s)
    hosts = _Joined(client)
    if not hosts.is_lead:
        logging.getLogger("eef_jax").setLevel(logging.WARNING)  # what all do is said once
    watch = Heartbeat(client, hosts, timeout_s)
    try:
        yield hosts
        hosts.barrier()
    except BaseException as error:
        _print(error)
        watch.tell(f"{type(error).__name__}: {error}")
        end()
    finally:
        watch.close()


class _Joined:
    """This process among those of a run (see `hosts.Hosts`)."""

    def __init__(self, client: Any):
        import jax

        self.process_index = jax.process_index()
        self.process_count = jax.process_count()
        self._client = client
        self._count = 0

    @property
    def is_lead(self) -> bool:
        return self.process_index == 0

    def barrier(self) -> None:
        # No time limit of its own: a stage may take hours, and the dead are the watch's affair.
        self._client.wait_at_barrier(f"eef/barrier/{self._next()}", _DAY_MS * 365)

    def broadcast(self, value: str) -> str:
        key = f"eef/broadcast/{self._next()}"
        if self.is_lead:
            self._client.key_value_set(key, value)
            return value
        value_of_lead: str = self._client.blocking_key_value_get(key, _DAY_MS * 365)
        return value_of_lead

    def _next(self) -> int:
        self._count += 1
        return self._count


def _connect(
    coordinator: str | None, processes: int | None, process: int | None, timeout_s: float
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
            heartbeat_timeout_seconds=int(2 * timeout_s + 10),
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the processes of the run did not find each other ({first_line(error)}): check "
            "--coordinator, --processes and --process, or, with --cluster, that this is started by "
            "the cluster's launcher"
        ) from error
    return distributed.global_state.client


def _print(error: BaseException) -> None:
    if isinstance(error, EefError):
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
