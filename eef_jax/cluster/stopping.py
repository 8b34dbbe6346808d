"""Signals that end a run: SIGTERM (a scheduler, a preempted machine) and SIGINT (Ctrl-C).

The first signal is a request. Work that can end in good order runs inside `cooperative()`, asks
`requested()` after each step or finished episode, keeps what it has and raises `Stopped`. Elsewhere
the signal raises `Stopped` in the main thread; where that thread does not come to it (it compiles,
or waits at a barrier), the process ends soon. A second signal ends it at once.

Periodic saves are what a run relies on: this is a courtesy that loses less.
"""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn, Protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 1.5  # in which the main thread may end by itself, outside of `cooperative`
_SAME_S = 1.0  # signals within this time are one: a launcher may send what a terminal has sent
_LOOK_S = 0.1


class Stopped(KeyboardInterrupt):
    """The process was told to end; `signal` says by what.

    Like Ctrl-C's own exception it is no `Exception`, so that no failure is made of it.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number.name)
        self.signal = number

    @property
    def exit_code(self) -> int:
        """What shells report after the signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal


class Peers(Protocol):
    """The other processes of a run."""

    def announce_stop(self, number: signal.Signals) -> None:
        """Tell them that this process was asked to end."""

    def farewell(self) -> None:
        """Tell them that this process ends now; the lead waits for theirs."""


class _State:
    """What one process knows of being asked to end."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self.raised = False
        self.sections = 0  # `cooperative` blocks that are open
        self.peers: Peers | None = None
        self.watched = False  # whether the handlers are installed


_state = _State()


def requested() -> signal.Signals | None:
    """The signal that asked this process, or another process of the run, to end; else None."""
    return _state.requested


def raise_if_requested() -> None:
    """Raise `Stopped` if a signal asked this process to end."""
    if _state.requested is not None:
        raise Stopped(_state.requested)


def request(number: signal.Signals) -> None:
    """Ask this process to end, as the signal would; for one that another process has got."""
    _state.requested = _state.requested or number
    if _state.watched:  # else no handler is installed, and a library's user decides
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@contextlib.contextmanager
def cooperative() -> Iterator[None]:
    """A context of the main thread whose code asks `requested()` regularly and ends by itself."""
    _state.sections += 1
    try:
        yield
    finally:
        _state.sections -= 1


def set_peers(peers: Peers | None) -> None:
    """The processes to tell when this one is asked to end."""
    _state.peers = peers


def farewell() -> None:
    """Tell the other processes that this one ends now."""
    if _state.peers is not None:
        _state.peers.farewell()


def install(end: Callable[[signal.Signals], NoReturn], ended: threading.Event) -> None:
    """Take the signals from now on. To be called once, by the main thread.

    Args:
        end: ends the process; called from another thread where the main one does not come to it.
        ended: set by the main thread where it ends for another reason.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a script's background
            signal.signal(number, _raise_in_main_thread)
    # A signal's number arrives at this socket at once, whatever the main thread is in.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())  # open as long as the process lives
    _state.watched = True
    watch = threading.Thread(target=_watch, args=(reader, end, ended), name="eef-signals")
    watch.daemon = True
    watch.start()


def _raise_in_main_thread(number: int, _: FrameType | None) -> None:
    """Python calls this between two instructions of the main thread."""
    _state.requested = _state.requested or signal.Signals(number)
    if not _state.sections and not _state.raised:
        _state.raised = True
        raise Stopped(_state.requested)


def _watch(
    reader: socket.socket, end: Callable[[signal.Signals], NoReturn], ended: threading.Event
) -> None:
    """Wait for the first signal, tell the other processes, and see that this one ends."""
    number = _receive(reader)
    while number is None:
        number = _receive(reader)
    # Already set where the main thread was faster, or where the signal comes from `request`.
    number = _state.requested = _state.requested or number
    if _state.peers is not None:
        _state.peers.announce_stop(number)
    began = last_cooperative = time.monotonic()
    reader.settimeout(_LOOK_S)
    while not ended.is_set():
        again, now = _receive(reader), time.monotonic()
        if _state.sections:
            last_cooperative = now
        if (again and now - began > _SAME_S) or now - last_cooperative > GRACE_S:
            end(number)


def _receive(reader: socket.socket) -> signal.Signals | None:
    """The next signal; None if it is not one of ours, or none has come in the socket's time."""
    try:
        number = reader.recv(1)[0]
    except TimeoutError:
        return None
    return signal.Signals(number) if number in SIGNALS else None
