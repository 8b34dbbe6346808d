"""Threads for blocking simulator calls, with a wall-clock limit on each call.

Python cannot stop a thread that exceeds the limit, so the thread is abandoned (it is a daemon,
which does not keep the process alive) and replaced: a hanging simulator costs one thread, not the
pool.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any


class CallTimeoutError(Exception):
    """A call that did not return within its time limit."""


class ThreadPool:
    """A bounded set of threads for one event loop.

    Args:
        count: largest number of concurrent calls.
        timeout_s: wall-clock limit of a call, in seconds from its start.
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
            # `wait` instead of `wait_for`: a TimeoutError raised by the call itself must reach the
            # caller as it is.
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
    while (call := inbox.get()) is not None:
        function, args, future = call
        try:
            result, error = function(*args), None
        except BaseException as caught:  # every exception is handed to the caller
            result, error = None, caught
        try:
            future.get_loop().call_soon_threadsafe(_deliver, future, result, error)
        except RuntimeError:  # the loop is closed: no caller is left
            return


def _deliver(future: asyncio.Future, result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        future.set_exception(error)
    else:  # asyncio refuses StopIteration in a future; SystemExit must not end the event loop
        future.set_exception(RuntimeError(f"the call raised {error!r}"))
