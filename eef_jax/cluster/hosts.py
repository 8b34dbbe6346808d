"""The processes of a run: index, count, barrier and broadcast.

Several processes share one work folder: all of them play and train, and only process 0, the lead,
writes the run's files. `distributed` connects them; a run of one process uses `SINGLE_PROCESS`.
Loads no JAX.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Hosts(Protocol):
    """The processes of a run, from the point of view of one of them.

    All processes must make the same calls in the same order.

    Attributes:
        process_index: index of this process, from 0.
        process_count: number of processes.
    """

    process_index: int
    process_count: int

    @property
    def is_lead(self) -> bool:
        """Whether this process writes the run's files (process 0)."""

    def barrier(self) -> None:
        """Wait until all processes have called it."""

    def broadcast(self, value: str) -> str:
        """Return the lead's value on all processes."""


class SingleProcess:
    """The only process of a run."""

    process_index = 0
    process_count = 1
    is_lead = True

    def barrier(self) -> None:
        """Return at once."""

    def broadcast(self, value: str) -> str:
        """Return the value."""
        return value


SINGLE_PROCESS = SingleProcess()
