"""A bounded number of JVMs, each with one simulator in it, that episodes take turns on.

A seat is a simulator and the state it stands in. Who asks for a state is given the seat that stands
there, if there is one; else a seat that nobody needs any more, a new one, or the one whose own
state is the cheapest to come back to. Dead and hanging JVMs are thrown away, and new ones take
their places. Knows states as things with a length, not what they mean.
"""

import dataclasses
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from eef_jax.errors import EnvError


class Simulator(Protocol):
    """What sits in a seat: something in a process that can die."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        ...

    def close(self) -> None:
        """End its process; closing twice is fine."""
        ...


class Place(Protocol):
    """A state that a simulator can stand in; compared by identity, referred to weakly."""

    @property
    def cost(self) -> int:
        """What coming back to it takes: the number of actions to play again."""
        ...


S = TypeVar("S", bound=Simulator)


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Seat(Generic[S]):
    """A simulator and where it stands.

    Attributes:
        simulator: what sits here.
        at: weak reference to the state it stands in; None where that is unknown.
        busy: whether a thread is using it.
        used: when it was used last, counted in uses.
    """

    simulator: S
    at: Callable[[], Place | None] | None = None
    busy: bool = True
    used: int = 0

    def stands_in(self, state: Place) -> bool:
        """Whether the simulator stands in exactly this state."""
        return self.at is not None and self.at() is state

    @property
    def cost(self) -> int:
        """What is lost when somebody else takes the seat; -1: nothing."""
        place = None if self.at is None else self.at()
        return -1 if place is None else place.cost


@dataclasses.dataclass(slots=True, kw_only=True)
class Counts:
    """What a pool has done.

    Attributes:
        started: JVMs started.
        lost: JVMs that died or hung.
        resumed: times an episode was played again from its start to go on.
        replayed: actions that took.
    """

    started: int = 0
    lost: int = 0
    resumed: int = 0
    replayed: int = 0


class Pool(Generic[S]):
    """Seats, at most `size` of them.

    Args:
        make: starts a simulator; called outside of the pool's lock.
        size: bound on the number of JVMs.
    """

    def __init__(self, make: Callable[[], S], *, size: int):
        self.size = size
        self.counts = Counts()
        self._make = make
        self._seats: list[Seat[S]] = []
        self._coming = 0  # seats whose JVM is being started
        self._free = threading.Condition()
        self._closed = False
        self._uses = itertools.count(1)
        self._owner = os.getpid()
        # Also at the interpreter's end, and when the environment is dropped without `close`.
        self._finalizer = weakref.finalize(self, _close_all, self._seats)

    def take(self, state: Place) -> Seat[S]:
        """A seat for this thread alone, best one that stands in `state`; waits for one.

        Raises:
            EnvError: the pool was closed, or made in another process.
            JvmLost: a JVM was to be started and did not come up.
        """
        with self._free:
            while (seat := self._choose(state)) is None:
                if len(self._seats) + self._coming < self.size:
                    self._coming += 1
                    break
                self._free.wait()
            if seat is not None:
                seat.busy = True
                return seat
        try:
            seat = Seat(simulator=self._make())
        finally:
            with self._free:
                self._coming -= 1
                self._free.notify()
        with self._free:
            self.counts.started += 1
            self._seats.append(seat)
            closed = self._closed
        if closed:
            self.drop(seat)
        return seat

    def give(self, seat: Seat[S], state: Place | None) -> None:
        """Give a seat back, and say where it stands now (None: nobody knows)."""
        with self._free:
            seat.at = None if state is None else weakref.ref(state)
            seat.busy, seat.used = False, next(self._uses)
            self._free.notify()

    def drop(self, seat: Seat[S]) -> None:
        """Throw a taken seat away: its JVM is dead or hangs."""
        with self._free:
            if seat in self._seats:
                self._seats.remove(seat)
                self.counts.lost += not self._closed
            self._free.notify()
        seat.simulator.close()

    def resumed(self, actions: int) -> None:
        """Count an episode that was played again."""
        with self._free:
            self.counts.resumed += 1
            self.counts.replayed += actions

    def pids(self) -> list[int]:
        """Process ids of the JVMs, for tests and benchmarks that kill them."""
        with self._free:
            return [seat.simulator.pid for seat in self._seats]

    def close(self) -> None:
        """End all JVMs, those in use too; closing twice is fine."""
        with self._free:
            self._closed = True
            self._free.notify_all()
        _close_all(self._seats)

    def _choose(self, state: Place) -> Seat[S] | None:
        """An idle seat: the one at `state`, a forgotten one, or, if no more may come, any."""
        if self._closed or self._owner != os.getpid():
            raise EnvError(
                "the simulators of this environment are closed"
                if self._closed
                else "this environment was made before a fork: make one in each process"
            )
        idle = [seat for seat in self._seats if not seat.busy]
        for seat in idle:
            if not seat.simulator.alive:
                self._seats.remove(seat)
                self.counts.lost += 1
                seat.simulator.close()
        idle = [seat for seat in idle if seat in self._seats]
        if standing := [seat for seat in idle if seat.stands_in(state)]:
            return standing[0]
        best = min(idle, key=lambda seat: (seat.cost, seat.used), default=None)
        full = len(self._seats) + self._coming >= self.size
        return best if best is not None and (full or best.cost < 0) else None


def cores() -> int:
    """Number of cores this process may use: a sensible number of JVMs."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _close_all(seats: list) -> None:
    while seats:
        seats.pop().simulator.close()
