"""Each process of a run watches all others, so that nobody waits for the dead.

A process that fails tells the others; one that dies falls silent. Either way the others end, with a
message that says whose fault it is, whatever they are waiting for at that moment (a collective, a
meeting, a checkpoint). Knows a key-value store and clocks; knows no stage, model or file.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from eef_jax.cluster.hosts import Hosts

_FAREWELL_S = 5.0  # a failing lead keeps its keys readable for so long
_REMEDY = "start all processes again with the same --workdir: finished stages are kept"


class StaleHeartbeats:
    """Who has been silent for too long, judged by this process's own clock alone.

    Args:
        timeout_s: silence that a process is taken for dead after, in seconds.
    """

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
        self._heard: dict[int, tuple[str, float]] = {}
        self._looked: float | None = None

    def find(self, beats: Mapping[int, str], now: float) -> int | None:
        """The number of a process whose beat has not changed for too long, if there is one.

        Args:
            beats: the last beat of each process that has given one.
            now: this process's clock, in seconds.
        """
        if self._looked is not None and now - self._looked > self._timeout_s / 2:
            self._heard.clear()  # this process itself stood still: nobody's silence counts
        self._looked = now
        for number, beat in beats.items():
            before, since = self._heard.get(number, ("", now))
            self._heard[number] = beat, since if beat == before else now
        silent = (n for n, (_, since) in self._heard.items() if now - since > self._timeout_s)
        return next(silent, None)


class Heartbeat:
    """A thread that gives signs of life and looks for those of the others.

    Args:
        client: of the coordinator's key-value store.
        hosts: the processes of the run.
        timeout_s: see `StaleHeartbeats`.
    """

    def __init__(self, client: Any, hosts: Hosts, timeout_s: float):
        self._client = client
        self._hosts = hosts
        self._timeout_s = timeout_s
        # Everyone reads everyone's beat: the more processes, the more seldom.
        self._pause_s = min(max(1.0, hosts.process_count / 64), timeout_s / 4)
        self._closing = threading.Event()
        self._silence = StaleHeartbeats(timeout_s)
        self._thread = threading.Thread(target=self._run, name="eef-watch", daemon=True)
        self._thread.start()

    def tell(self, reason: str) -> None:
        """Tell the others that this process fails, and leave them time to hear it."""
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
                trouble = f"the coordinator, process 0, is gone ({first_line(error)})"
            if trouble:
                self._give_up(trouble)

    def _look(self, beat: int) -> str:
        """Give a sign of life; what is wrong with the others, if anything."""
        me = self._hosts.process_index
        self._client.key_value_set(f"eef/alive/{me}", str(beat), allow_overwrite=True)
        for key, reason in self._client.key_value_dir_get("eef/failed/"):
            return f"process {key.rpartition('/')[2]} failed on {reason}"
        alive = self._client.key_value_dir_get("eef/alive/")
        beats = {int(key.rpartition("/")[2]): beat for key, beat in alive}
        silent = self._silence.find(beats, time.monotonic())
        if silent is None:
            return ""
        return f"process {silent} has given no sign of life for {self._timeout_s:g} s"

    def _give_up(self, trouble: str) -> None:
        me, all_of_us = self._hosts.process_index, self._hosts.process_count
        print(f"process {me} of {all_of_us} ends: {trouble}; {_REMEDY}", file=sys.stderr)
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"eef/heard/{me}", "")
        end()


def end() -> None:
    """End the process without the leave-taking that waits for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def first_line(error: BaseException) -> str:
    """What an error says first; the runtime's own go on for pages."""
    return str(error).strip().partition("\n")[0]
