"""The engine's thread: runs the scheduler, settles futures, carries out commands in order."""

import atexit
import collections
import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from eef_jax.engine.functions import Leaves
from eef_jax.engine.request import GenerationRequest, GenerationResult
from eef_jax.engine.scheduler import Scheduler

_log = logging.getLogger(__name__)


class Adapter:
    """Trained parameters held by an engine; made by `Engine.load_adapter`.

    Attributes:
        worker: the thread that holds them.
        version: a number that no other adapter of the engine has.
        loaded: whether they are still held.
    """

    def __init__(self, worker: "Worker", version: int):
        self.worker = worker
        self.version = version
        self.loaded = True


class Worker:
    """Runs a scheduler on one thread; every method can be called from any thread.

    Args:
        scheduler: used by the worker's thread only from now on.
    """

    def __init__(self, scheduler: Scheduler):
        self._scheduler = scheduler
        self._versions = itertools.count()
        self._commands: collections.deque[Callable[[], None]] = collections.deque()
        self._unsettled: dict[Future[GenerationResult], Adapter] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def load_adapter(self, leaves: Leaves) -> Adapter:
        """Hold an adapter's arrays; returns at once."""
        adapter = Adapter(self, next(self._versions))
        self.run(lambda: self._scheduler.add_adapter(adapter.version, leaves))
        return adapter

    def unload_adapter(self, adapter: Adapter) -> None:
        """Drop an adapter and its pages, and cancel its requests; returns at once."""
        with self._lock:
            adapter.loaded = False
            futures = [future for future, of in self._unsettled.items() if of is adapter]
        for future in futures:
            future.cancel()
        self.run(lambda: self._scheduler.remove_adapter(adapter.version))

    def submit(
        self, request: GenerationRequest, future: Future[GenerationResult], adapter: Adapter
    ) -> None:
        """Queue a request; returns at once.

        Args:
            request: its `on_done` must settle the future.
            future: of its result; cancelling it cancels the request.
            adapter: the adapter to generate with.

        Raises:
            RuntimeError: the worker is closed, or the adapter was unloaded.
        """
        with self._lock:
            if self._closing:
                raise RuntimeError("the engine is closed; make another one")
            if not adapter.loaded:
                raise RuntimeError(
                    "the session's adapter was unloaded: load it again and open another session"
                )
            self._unsettled[future] = adapter
            self._enqueue(lambda: self._begin(request, future))
        # Not under the lock: a future that is settled by now runs the callback here.
        future.add_done_callback(lambda _: self._end(request, future))

    def release_cache(self) -> None:
        """Free the KV cache's memory until the next request; waits until this is done.

        Raises:
            RuntimeError: while requests are unfinished, after `close`, or on the worker's thread
                (from a future's callback), which would wait for itself.
        """
        done: Future[None] = Future()
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "a future's callback cannot release the cache: the engine waits for the callback"
            )
        with self._lock:
            if self._closing:
                raise RuntimeError("the engine is closed; its memory goes with its last reference")
            self._enqueue(lambda: self._release_cache(done))
        done.result()

    def close(self, *, wait: bool = True) -> None:
        """Accept no more requests and end the thread; closing twice is fine.

        Args:
            wait: finish the submitted requests first; otherwise they are cancelled.
        """
        with self._lock:
            self._closing = True
            futures = () if wait else tuple(self._unsettled)
        for future in futures:
            future.cancel()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def run(self, command: Callable[[], None]) -> None:
        """Run a function on the worker's thread, between two dispatches; returns at once.

        If it raises, all unfinished requests fail with its exception.
        """
        with self._lock:
            self._enqueue(command)

    def _enqueue(self, command: Callable[[], None]) -> None:
        """Queue a command; the caller holds the lock, under which the thread also ends."""
        self._commands.append(command)
        if self._thread is None and not self._closing:
            # A daemon thread, so that a program that forgets to close the engine still ends; closed
            # at exit, since ending it in the middle of a dispatch would crash the process.
            self._thread = threading.Thread(target=self._loop, name="eef-engine", daemon=True)
            atexit.register(_close_at_exit, weakref.ref(self))
            self._thread.start()
        self._wake.set()

    def _loop(self) -> None:
        """Run commands and scheduler steps; a failure fails the requests, not the thread."""
        while True:
            worked = False
            try:
                while self._commands:
                    self._commands.popleft()()
                worked = self._scheduler.step()
            except BaseException as error:  # without this thread every future would wait forever
                self._fail(error)
            if worked or self._commands:
                continue
            with self._lock:
                if self._closing and not self._commands and not self._scheduler.busy:
                    return
            self._wake.wait()
            self._wake.clear()

    def _begin(self, request: GenerationRequest, future: Future[GenerationResult]) -> None:
        if not future.done():  # else it was cancelled, or failed together with others
            self._scheduler.submit(request)

    def _end(self, request: GenerationRequest, future: Future[GenerationResult]) -> None:
        with self._lock:
            del self._unsettled[future]
        if future.cancelled():
            future.set_running_or_notify_cancel()  # wakes `concurrent.futures.wait`
            self.run(lambda: self._scheduler.cancel(request))

    def _release_cache(self, done: Future[None]) -> None:
        if self._scheduler.busy:
            error = RuntimeError("requests are being generated; wait for them, or cancel them")
            done.set_exception(error)
            return
        try:
            self._scheduler.reset()
        except Exception as error:
            done.set_exception(error)
            raise
        done.set_result(None)

    def _fail(self, error: BaseException) -> None:
        """Fail all requests; the cache may be half written, so it is freed."""
        self._scheduler.reset()
        with self._lock:
            futures = tuple(self._unsettled)
        for future in futures:
            settle(future, error)


def settle(future: Future[GenerationResult], outcome: GenerationResult | BaseException) -> None:
    """Set a future's result or exception; a future that was cancelled stays so."""
    try:
        if isinstance(outcome, GenerationResult):
            future.set_result(outcome)
        elif isinstance(outcome, Exception) and not isinstance(outcome, StopIteration):
            future.set_exception(outcome)
        else:
            # asyncio's futures refuse StopIteration, and others, such as SystemExit, would end the
            # caller's program.
            future.set_exception(RuntimeError(f"the request failed with {outcome!r}"))
    except InvalidStateError:
        pass  # it was cancelled in the meantime
    except BaseException:
        # Futures log what a callback raises only if it is an `Exception`.
        _log.exception("a callback of a request's future raised")


def _close_at_exit(reference: "weakref.ref[Worker]") -> None:
    worker = reference()
    if worker is not None:
        worker.close(wait=False)
