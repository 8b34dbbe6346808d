"""Connect the processes of a multi-process run.

A thin layer over `jax.distributed`. Barriers, broadcasts and heartbeats use the key-value store of
its coordinator (process 0).
"""

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from absl import flags

from eef_jax.cluster import stopping
from eef_jax.cluster.heartbeat import FAILED, Heartbeat, end, first_line
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.errors import ConfigError, sentence
from eef_jax.untrusted import one_line, show

PEER_TIMEOUT_S = 60.0  # seconds without a heartbeat after which a process counts as dead
_STATUS = re.compile(r"[A-Z]{2,}(_[A-Z]+)*: ")
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
        "Seconds without a heartbeat after which a process counts as dead.",
    )


def from_flags() -> contextlib.AbstractContextManager[Hosts]:
    """Connect with the values of the command-line flags (see `connect`)."""
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
    """Join a multi-process run as a context; without arguments, a run of one process.

    An exception in the context ends this process at once, after the others are notified: they
    cannot continue without it, and an orderly shutdown would wait for them. `stopping.Stopped`
    alone leaves the context: the command line ends the process then.

    Args:
        coordinator: address of process 0, `HOST:PORT`.
        processes: number of processes.
        process: index of this process, from 0.
        cluster: take those of the three that are not given from the cluster's environment (TPU
            pods, GKE, Slurm, Open MPI).
        timeout_s: seconds without a heartbeat after which a process counts as dead.

    Yields:
        The processes of the run.

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
    hosts = _ProcessGroup(client)
    if not hosts.is_lead:
        logging.getLogger("eef_jax").setLevel(logging.WARNING)  # the lead logs for all
    heartbeat = Heartbeat(client, hosts, timeout_s)
    stopping.set_peers(heartbeat)
    try:
        yield hosts
        hosts.barrier()
        stopping.set_peers(None)
    except stopping.Stopped:
        raise  # the command line says farewell
    except BaseException as error:
        if _from_runtime(error):
            show(one_line(f"{first_line(error)}: did another process die?"), file=sys.stderr)
            heartbeat.wait_for_verdict()
        _print(error)
        heartbeat.report_failure(f"{type(error).__name__}: {error}")
        end(FAILED)
    finally:
        heartbeat.close()


def _from_runtime(error: BaseException) -> bool:
    """Whether a collective or the coordination service raised it, as both do when a peer dies."""
    import jax

    # JAX's fast path raises a ValueError with the runtime's status: "UNKNOWN: Gloo AllGather ...".
    return isinstance(error, jax.errors.JaxRuntimeError) or (
        isinstance(error, ValueError | RuntimeError) and bool(_STATUS.match(str(error)))
    )


class _ProcessGroup:
    """The processes of a run over the coordinator's key-value store (see `hosts.Hosts`)."""

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
        # A year, in effect no time limit: a stage may take hours. Dead peers end the wait through
        # the heartbeat, which ends this process.
        self._client.wait_at_barrier(f"eef/barrier/{self._next()}", _DAY_MS * 365)

    def broadcast(self, value: str) -> str:
        key = f"eef/broadcast/{self._next()}"
        if self.is_lead:
            self._client.key_value_set(key, value)
            return value
        leads_value: str = self._client.blocking_key_value_get(key, _DAY_MS * 365)
        return leads_value

    def _next(self) -> int:
        self._count += 1
        return self._count


def _connect(
    coordinator: str | None, processes: int | None, process: int | None, timeout_s: float
) -> Any:
    """Connect to the coordinator and return its key-value client."""
    import jax
    from jax._src import distributed  # the key-value store has no public API; Orbax uses it, too

    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            # Longer than our own heartbeat's timeout, which must act first: JAX's would end the
            # process with a C++ stack trace instead of a message.
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
    show(sentence(error) or "".join(traceback.format_exception(error)), file=sys.stderr)
