"""The processes of one run: who this one is, and how it waits for the others.

A run of one process is the plain case and needs nothing. Several share the work folder: process 0,
the lead, alone writes what a run leaves behind; all play and train. Knows neither JAX nor files
(how processes find each other: `distributed`).
"""

from typing import Protocol


class Hosts(Protocol):
    """The processes of a run, as one of them sees them.

    All processes make the same calls in the same order.

    Attributes:
        process_index: number of this process, from 0.
        process_count: how many there are.
    """

    process_index: int
    process_count: int

    @property
    def is_lead(self) -> bool:
        """Whether this process writes what the run leaves behind."""

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def broadcast(self, value: str) -> str:
        """The lead's value, on all processes."""


class SingleProcess:
    """The only process of a run."""

    process_index = 0
    process_count = 1
    is_lead = True

    def barrier(self) -> None:
        """Nobody to wait for."""

    def broadcast(self, value: str) -> str:
        """Its own value."""
        return value


SINGLE_PROCESS = SingleProcess()
