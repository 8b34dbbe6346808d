"""Peer liveness: each process of a run publishes a heartbeat and checks those of all others.

If a process reports a failure or its heartbeat stops, the other processes exit with a message that
names it, whatever they are blocked in (a collective, a barrier, a checkpoint). The exit code tells
a launcher what to do: `PEER_DIED` asks for a restart, 1 is an error that a restart would repeat.

A process that is told to end (`stopping`) tells the others, which end as well.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from eef_jax.cluster import stopping
from eef_jax.cluster.hosts import Hosts
from eef_jax.untrusted import one_line, show

# Launchers restart on it: xpk does by default, since 42 is the code that JAX users agreed on.
PEER_DIED = 42
FAILED = 1
_FAREWELL_S = 5.0  # a failing lead keeps the key-value store up this long, for the others to read
_LAST_S = 10.0  # a process goes on this long after another one was told to end, and has ended
# Where JAX notes in the key-value store that a process has got SIGTERM, whose handler is JAX's own
# in a run of several processes: all of them then reach `reached_preemption_sync_point` at one step.
_NOTICE = "RECEIVED_PREEMPTION_NOTICE"
_REMEDY = "start all processes again with the same --workdir: finished stages are kept"


class StaleHeartbeats:
    """Finds processes whose heartbeat has stopped, by this process's own clock only.

    Args:
        timeout_s: seconds without a new heartbeat after which a process counts as dead.
    """

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
        self._last_changed: dict[int, tuple[str, float]] = {}
        self._last_call: float | None = None

    def find(self, beats: Mapping[int, str], now: float) -> int | None:
        """Index of a process whose heartbeat is older than the timeout, or None.

        Args:
            beats: the last heartbeat of each process that has sent one.
            now: this process's clock, in seconds.
        """
        if self._last_call is not None and now - self._last_call > self._timeout_s / 2:
            # This process itself was suspended, so the age of the others' heartbeats means nothing.
            self._last_changed.clear()
        self._last_call = now
        for index, beat in beats.items():
            before, since = self._last_changed.get(index, ("", now))
            self._last_changed[index] = beat, since if beat == before else now
        stale = (n for n, (_, t) in self._last_changed.items() if now - t > self._timeout_s)
        return next(stale, None)


class Heartbeat:
    """A thread that publishes this process's heartbeat and checks the others'.

    Args:
        client: client of the coordinator's key-value store.
        hosts: the processes of the run.
        timeout_s: seconds without a new heartbeat after which a process counts as dead.
    """

    def __init__(self, client: Any, hosts: Hosts, timeout_s: float):
        self._client = client
        self._hosts = hosts
        self._timeout_s = timeout_s
        # Each process reads the heartbeats of all: more processes, fewer reads per process.
        self._pause_s = min(max(1.0, hosts.process_count / 64), timeout_s / 4)
        self._closing = threading.Event()
        self._noticed = False
        self._peer_stopped: float | None = None
        self._stale = StaleHeartbeats(timeout_s)
        self._thread = threading.Thread(target=self._run, name="eef-heartbeat", daemon=True)
        self._thread.start()

    def report_failure(self, reason: str) -> None:
        """Report to the other processes that this one fails, and give them time to read it."""
        self._closing.set()
        with contextlib.suppress(Exception):
            me = f"{self._hosts.process_index}"
            self._client.key_value_set(
                f"eef/failed/{me}", f"{socket.gethostname()}: {reason}"[:2000]
            )
            until = time.monotonic() + _FAREWELL_S
            while self._hosts.is_lead and time.monotonic() < until:
                if (
                    len(self._client.key_value_dir_get("eef/heard/"))
                    >= self._hosts.process_count - 1
                ):
                    break
                time.sleep(0.1)

    def wait_for_verdict(self) -> None:
        """Wait until a dead peer would be noticed; if there is one, this process ends here.

        A collective that loses a peer raises at once, long before the peer's heartbeat is missed.
        Its error says nothing about this process.
        """
        self._thread.join(self._timeout_s + 2 * self._pause_s)

    def announce_stop(self, number: signal.Signals) -> None:
        """Tell the other processes that this one was asked to end (see `stopping.Peers`)."""
        if not self._noticed and number is not signal.SIGTERM:
            os.kill(os.getpid(), signal.SIGTERM)  # to JAX, which notes it for all

    def farewell(self) -> None:
        """Tell the other processes that this one ends now; the lead waits for theirs."""
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"eef/stopped/{self._hosts.process_index}", "")
            until = time.monotonic() + _LAST_S
            while self._hosts.is_lead and time.monotonic() < until:
                if len(self._client.key_value_dir_get("eef/stopped/")) >= self._hosts.process_count:
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
                failure, death = self._beat_and_check(beat)
            except Exception as error:
                if self._closing.is_set():
                    return
                failure, death = "", f"the coordinator, process 0, is gone ({first_line(error)})"
            if failure:
                self._exit(failure, FAILED)
            if death:
                self._exit(death, PEER_DIED)

    def _beat_and_check(self, beat: int) -> tuple[str, str]:
        """Publish a heartbeat; return another process's failure and its death, each "" if none."""
        me = self._hosts.process_index
        self._client.key_value_set(f"eef/alive/{me}", str(beat), allow_overwrite=True)
        for key, reason in self._client.key_value_dir_get("eef/failed/"):
            return f"process {key.rpartition('/')[2]} failed on {reason}", ""
        self._look_for_stops()
        alive = self._client.key_value_dir_get("eef/alive/")
        beats = {int(key.rpartition("/")[2]): beat for key, beat in alive}
        stale = self._stale.find(beats, time.monotonic())
        if stale is None:
            return "", ""
        return "", f"process {stale} has given no sign of life for {self._timeout_s:g} s"

    def _look_for_stops(self) -> None:
        """Ask this process to end if another one was; end it if it does not after that one has."""
        if not self._noticed and (
            self._has(_NOTICE) or self._client.key_value_dir_get("eef/stopped/")
        ):
            self._noticed = True
            stopping.request(signal.SIGTERM)
        if self._noticed and self._client.key_value_dir_get("eef/stopped/"):
            since = self._peer_stopped = self._peer_stopped or time.monotonic()
            if time.monotonic() - since > _LAST_S:
                self._exit(
                    "another process was told to end", stopping.Stopped(signal.SIGTERM).exit_code
                )

    def _has(self, key: str) -> bool:
        try:
            self._client.key_value_try_get(key)
        except Exception as error:
            if "NOT_FOUND" in str(error):
                return False
            raise
        return True

    def _exit(self, trouble: str, code: int) -> None:
        me, count = self._hosts.process_index, self._hosts.process_count
        said = f"process {me} of {count} ends: {trouble}; {_REMEDY}"
        show(one_line(said), file=sys.stderr)
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"eef/heard/{me}", "")
        end(code)


def end(code: int) -> None:
    """End the process without the shutdown handlers, which would wait for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def first_line(error: BaseException) -> str:
    """First line of an error's text; errors of the runtime can be pages long."""
    return str(error).strip().partition("\n")[0]
