"""Threads for blocking simulator calls, with a wall-clock limit on each call.

A thread that runs into the limit cannot be stopped, so it is left behind (a daemon, which never
holds up the program's end) and replaced: one hanging simulator costs one thread, not the pool.
Knows calls and clocks, nothing of environments.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any


class CallTimeoutError(Exception):
    """A call that did not come back in time."""


class ThreadPool:
    """A bounded set of threads for one event loop.

    Args:
        count: how many calls may run at once.
        timeout_s: wall-clock limit of a call, in seconds from when it starts to run.
    """

    def __init__(self, count: int, *, timeout_s: float):
        if count < 1:
            raise ValueError(f"{count} threads: at least one is needed to step an environment")
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(count)
        self._idle: list[queue.SimpleQueue] = []

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in a thread and return what it returns or raise what it raises.

        Raises:
            CallTimeoutError: it takes longer than `timeout_s`; the call itself keeps running.
        """
        async with self._free:
            inbox = self._idle.pop() if self._idle else _start()
            future = asyncio.get_running_loop().create_future()
            inbox.put((function, args, future))
            # `wait` instead of `wait_for`: a TimeoutError raised by the call is the call's own.
            try:
                done, _ = await asyncio.wait({future}, timeout=self._timeout_s)
            except asyncio.CancelledError:
                inbox.put(None)
                raise
            if not done:
                future.cancel()
                inbox.put(None)
                raise CallTimeoutError(f"no answer within {self._timeout_s:g} s")
            self._idle.append(inbox)
            return future.result()

    def close(self) -> None:
        """End the idle threads."""
        while self._idle:
            self._idle.pop().put(None)


def _start() -> queue.SimpleQueue:
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_work, args=(inbox,), name="eef-env", daemon=True).start()
    return inbox


def _work(inbox: queue.SimpleQueue) -> None:
    while (order := inbox.get()) is not None:
        function, args, future = order
        try:
            result, error = function(*args), None
        except BaseException as caught:  # all of them are the caller's to see
            result, error = None, caught
        try:
            future.get_loop().call_soon_threadsafe(_deliver, future, result, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _deliver(future: asyncio.Future, result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        future.set_exception(error)
    else:
        future.set_exception(RuntimeError(f"the call raised {error!r}"))
