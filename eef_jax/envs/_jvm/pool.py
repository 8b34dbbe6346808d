"""A bounded pool of JVMs, one simulator each, shared by all episodes of an environment.

The pool remembers which state each simulator is in. A request for a state gets, in this order: the
idle simulator that is in it, an idle one whose episode is gone, a new one while the pool is not
full, or the idle one whose own state is cheapest to restore. Dead and hanging JVMs are discarded
and replaced. States are opaque here except for their replay cost.
"""

import dataclasses
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from eef_jax.errors import EnvError


class PooledProcess(Protocol):
    """What the pool manages: a process that can die."""

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        ...

    def close(self) -> None:
        """Stop the process. Idempotent."""
        ...


class RestorableState(Protocol):
    """A state that a simulator can be in; compared by identity, referred to weakly."""

    @property
    def replay_cost(self) -> int:
        """Number of actions to replay to restore it."""
        ...


P = TypeVar("P", bound=PooledProcess)


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class PoolEntry(Generic[P]):
    """A simulator and the state it is in.

    Attributes:
        simulator: the process.
        state_ref: weak reference to the current state; None if that is unknown.
        busy: whether a thread is using the simulator.
        last_used: sequence number of the last use.
    """

    simulator: P
    state_ref: Callable[[], RestorableState | None] | None = None
    busy: bool = True
    last_used: int = 0

    def is_at(self, state: RestorableState) -> bool:
        """Whether the simulator is in exactly this state."""
        return self.state_ref is not None and self.state_ref() is state

    @property
    def eviction_cost(self) -> int:
        """Replay cost of the current state; -1 if no episode needs it any more."""
        state = None if self.state_ref is None else self.state_ref()
        return -1 if state is None else state.replay_cost


@dataclasses.dataclass(slots=True, kw_only=True)
class PoolStats:
    """Counters of a pool.

    Attributes:
        started: JVMs started.
        lost: JVMs that died or hung.
        replays: episodes replayed from their start in order to continue.
        replayed_actions: actions performed in those replays.
    """

    started: int = 0
    lost: int = 0
    replays: int = 0
    replayed_actions: int = 0


class JvmPool(Generic[P]):
    """At most `size` simulators, handed to one thread at a time.

    Args:
        make: starts a simulator; called without holding the pool's lock.
        size: maximum number of JVMs.
    """

    def __init__(self, make: Callable[[], P], *, size: int):
        self.size = size
        self.stats = PoolStats()
        self._make = make
        self._entries: list[PoolEntry[P]] = []
        self._starting = 0  # entries whose JVM is being started
        self._available = threading.Condition()
        self._closed = False
        self._uses = itertools.count(1)
        self._owner = os.getpid()
        # Also runs at interpreter exit, and when the environment is dropped without `close`.
        self._finalizer = weakref.finalize(self, _close_all, self._entries)

    def acquire(self, state: RestorableState) -> PoolEntry[P]:
        """Return an entry for exclusive use, preferably one in `state`; block until there is one.

        Raises:
            EnvError: the pool was closed, or created in another process.
            JvmLost: a new JVM did not start.
        """
        with self._available:
            while (entry := self._select_idle(state)) is None:
                if not self._full():
                    self._starting += 1
                    break
                self._available.wait()
            if entry is not None:
                entry.busy = True
                return entry
        return self._start_entry()

    def release(self, entry: PoolEntry[P], state: RestorableState | None) -> None:
        """Return an entry with its new state (None if unknown)."""
        with self._available:
            entry.state_ref = None if state is None else weakref.ref(state)
            entry.busy, entry.last_used = False, next(self._uses)
            self._available.notify()

    def discard(self, entry: PoolEntry[P]) -> None:
        """Remove an acquired entry whose JVM is dead or hangs."""
        with self._available:
            if entry in self._entries:
                self._entries.remove(entry)
                self.stats.lost += not self._closed
            self._available.notify()
        entry.simulator.close()

    def count_replay(self, actions: int) -> None:
        """Record that an episode was replayed with this number of actions."""
        with self._available:
            self.stats.replays += 1
            self.stats.replayed_actions += actions

    def pids(self) -> list[int]:
        """Return the process ids of the JVMs; tests and benchmarks kill them."""
        with self._available:
            return [entry.simulator.pid for entry in self._entries]

    def close(self) -> None:
        """Stop all JVMs, also those in use. Idempotent."""
        with self._available:
            self._closed = True
            self._available.notify_all()
        _close_all(self._entries)

    def _full(self) -> bool:
        return len(self._entries) + self._starting >= self.size

    def _start_entry(self) -> PoolEntry[P]:
        try:
            entry = PoolEntry(simulator=self._make())
        finally:
            with self._available:
                self._starting -= 1
                self._available.notify()
        with self._available:
            self.stats.started += 1
            self._entries.append(entry)
            closed = self._closed
        if closed:
            self.discard(entry)
        return entry

    def _select_idle(self, state: RestorableState) -> PoolEntry[P] | None:
        """Return the best idle entry, or None if the caller should start one or wait."""
        if self._closed or self._owner != os.getpid():
            raise EnvError(
                "the simulators of this environment are closed"
                if self._closed
                else "this environment was created before a fork: create one in each process"
            )
        self._discard_dead()
        idle = [entry for entry in self._entries if not entry.busy]
        if at_state := [entry for entry in idle if entry.is_at(state)]:
            return at_state[0]
        best = min(idle, key=lambda entry: (entry.eviction_cost, entry.last_used), default=None)
        # While more JVMs may start, an entry is only taken from an episode that is gone.
        return best if best is not None and (self._full() or best.eviction_cost < 0) else None

    def _discard_dead(self) -> None:
        for entry in [entry for entry in self._entries if not entry.busy]:
            if not entry.simulator.alive:
                self._entries.remove(entry)
                self.stats.lost += 1
                entry.simulator.close()


def usable_cores() -> int:
    """Return the number of cores this process may use, the default number of JVMs."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _close_all(entries: list) -> None:
    while entries:
        entries.pop().simulator.close()
