"""Threads for blocking environment calls, with a wall-clock limit on each call.

Python cannot stop a thread that exceeds the limit, so the thread is left behind (it is a daemon,
which does not keep the process alive) and replaced: a hanging simulator costs one thread, not the
pool. Threads that were left behind are bounded as well, over all pools of the process.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

MOST_LEFT = 512  # threads left behind that a process bears; each holds what its call holds
_LOOK_S = 0.1  # how often a call looks whether one of them has returned

_left: set[threading.Thread] = set()  # each removes itself when its call returns after all


class CallTimeoutError(Exception):
    """A call that did not return within its time limit."""


class ThreadPool:
    """A bounded set of threads for one event loop.

    Attributes:
        timeouts: number of calls that exceeded the limit.

    Args:
        count: largest number of concurrent calls.
        timeout_s: wall-clock limit of a call, in seconds from its start.
    """

    def __init__(self, count: int, *, timeout_s: float):
        if count < 1:
            raise ValueError(f"{count} threads: at least one is needed to step an environment")
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(count)
        self._idle: list[_Worker] = []
        self.timeouts = 0

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in a thread and return what it returns or raise what it raises.

        Raises:
            CallTimeoutError: it takes longer than `timeout_s`, and the call itself keeps running;
                or `MOST_LEFT` such calls are still running, and none returns within `timeout_s`.
        """
        async with self._free:
            await self._wait_for_room()
            worker = self._idle.pop() if self._idle else _Worker()
            future = worker.start(function, *args)
            # A timer of ours: a TimeoutError raised by the call itself must reach the caller as it
            # is, and `asyncio.wait` costs as much as all the rest.
            timer = future.get_loop().call_later(self._timeout_s, _expire, future, self._timeout_s)
            returned = True
            try:
                return await future
            except (CallTimeoutError, asyncio.CancelledError) as error:
                returned = False
                self.timeouts += isinstance(error, CallTimeoutError)
                raise
            finally:
                timer.cancel()
                if returned:
                    self._idle.append(worker)
                else:
                    worker.leave()

    async def _wait_for_room(self) -> None:
        until = time.monotonic() + self._timeout_s
        while left_behind() >= MOST_LEFT:
            if time.monotonic() > until:
                self.timeouts += 1
                raise CallTimeoutError(f"not begun: {MOST_LEFT} earlier calls still run")
            await asyncio.sleep(_LOOK_S)

    def close(self) -> None:
        """End the idle threads."""
        while self._idle:
            self._idle.pop().end()


def left_behind() -> int:
    """Number of threads of this process whose call exceeded its limit and still runs."""
    return len(_left)


class _Worker:
    """A thread that runs one call after the other."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="eef-env", daemon=True)
        self._thread.start()

    def start(self, function: Callable[..., Any], *args: Any) -> asyncio.Future:
        """Begin a call; the running event loop gets its result."""
        future = asyncio.get_running_loop().create_future()
        self._inbox.put((function, args, future))
        return future

    def end(self) -> None:
        """End the thread after what it does."""
        self._inbox.put(None)

    def leave(self) -> None:
        """Leave the thread behind in its call; it ends with it."""
        _left.add(self._thread)
        self.end()

    def _work(self) -> None:
        while (call := self._inbox.get()) is not None:
            function, args, future = call
            try:
                result, error = function(*args), None
            except BaseException as caught:  # every exception is handed to the caller
                result, error = None, caught
            try:
                future.get_loop().call_soon_threadsafe(_deliver, future, result, error)
            except RuntimeError:  # the loop is closed: no caller is left
                break
            del call, future, result, error  # an idle thread holds no game
        _left.discard(threading.current_thread())


def _expire(future: asyncio.Future, timeout_s: float) -> None:
    if not future.done():
        future.set_exception(CallTimeoutError(f"no answer within {timeout_s:g} s"))


def _deliver(future: asyncio.Future, result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        future.set_exception(error)
    else:  # asyncio refuses StopIteration in a future; SystemExit must not end the event loop
        future.set_exception(RuntimeError(f"the call raised {error!r}"))
