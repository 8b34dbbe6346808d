"""The engine as its users see it: sessions that are opened, continued, forked and closed.

Every call may come from any thread and returns at once; answers are futures. One thread of the
engine's own runs the scheduler. Knows sessions, futures and threads; knows no text, no environments
and nothing of what a dispatch computes.
"""

import atexit
import collections
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError

import jax
import numpy as np
from flax import nnx

from eef_jax.engine.config import EngineConfig, resolve
from eef_jax.engine.pages import DECODED
from eef_jax.engine.programs import Programs
from eef_jax.engine.request import GenerationRequest, GenerationResult
from eef_jax.engine.sampling import MAX_STOP_IDS, SamplingParams
from eef_jax.engine.scheduler import Counters, Scheduler
from eef_jax.errors import ConfigError
from eef_jax.models.model import Model

_log = logging.getLogger(__name__)


class Adapter:
    """Trained parameters that an engine holds; see `Engine.load_adapter`.

    Attributes:
        engine: who holds them.
        version: a number that no other adapter of the engine has.
        loaded: whether the engine still holds them.
    """

    def __init__(self, engine: "Engine", version: int):
        self.engine = engine
        self.version = version
        self.loaded = True


class Session:
    """A conversation; made by `Engine.open`.

    Nothing of the device belongs to a session: its keys and values are found by its tokens, for as
    long as they are there, and computed again if they are not.
    """

    def __init__(
        self, engine: "Engine", adapter: Adapter, ids: Sequence[int], computed: np.ndarray
    ):
        self._engine = engine
        self._adapter = adapter
        self._ids = engine.checked(ids)
        self._computed = computed  # marks of the entries that answers have needed so far
        self._drawing: tuple[GenerationRequest, Future[GenerationResult]] | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens so far, given and drawn."""
        with self._lock:
            self._take()
            return self._ids

    def append(self, ids: Sequence[int]) -> None:
        """Add tokens that were not drawn here, say an observation's.

        Raises:
            RuntimeError: while an answer is being drawn, or after `close`.
            ConfigError: the model has no such token.
        """
        with self._lock:
            self._check("append to")
            self._ids += self._engine.checked(ids)

    def generate(
        self, sampling: SamplingParams, key: tuple[int, int] = (0, 0)
    ) -> Future[GenerationResult]:
        """Draw an answer; its ids are then part of the session.

        The answer depends on the weights, on how the session came about (its tokens, and which of
        them were drawn), on `sampling` and on `key`: not on anything else the engine does.

        Args:
            sampling: how to draw.
            key: two 32-bit words, from 0.

        Returns:
            A future; cancelling it drops the answer and leaves the session as it was.

        Raises:
            RuntimeError: while another answer is being drawn, after `close`, or where the engine
                is closed or has let the session's adapter go.
            ConfigError: for an empty session, another kind of key, or more stop ids than the device
                keeps.
        """
        with self._lock:
            self._check("generate in")
            if len(key) != 2 or not all(0 <= word < 1 << 32 for word in key):
                raise ConfigError(f"key {key}: expected two numbers from 0 to {(1 << 32) - 1}")
            if not self._ids:
                raise ConfigError("an answer to no tokens at all: open the session with a prompt")
            answer: Future[GenerationResult] = Future()
            job = self._job(sampling, key, answer)
            self._engine.submit(job, answer, self._adapter)
            self._drawing = job, answer
        return answer

    def fork(self) -> "Session":
        """Another session that stands where this one does; pages are shared until they differ.

        Raises:
            RuntimeError: while an answer is being drawn, or after `close`.
        """
        with self._lock:
            self._check("fork")
            return Session(self._engine, self._adapter, self._ids, self._computed)

    def close(self) -> None:
        """End the session; an answer that is being drawn is cancelled. Twice is fine."""
        with self._lock:
            self._closed, drawing = True, self._drawing
        if drawing is not None:
            drawing[1].cancel()

    def _job(
        self, sampling: SamplingParams, key: tuple[int, int], answer: Future[GenerationResult]
    ) -> GenerationRequest:
        stops = self._engine.stop_ids | frozenset(sampling.stop_ids)
        if len(stops) > MAX_STOP_IDS:
            raise ConfigError(
                f"{len(stops)} stop ids: the device keeps {MAX_STOP_IDS} of a request, so stop at "
                "the rarer ones with SamplingParams.stop"
            )
        marks = np.asarray(self._ids, np.int64)
        marks[: len(self._computed)] = self._computed
        marks[-1] |= DECODED  # the last token goes through decoding, which draws the next
        return GenerationRequest(
            adapter=self._adapter.version,
            marks=marks,
            prompt=len(marks),
            key=key,
            sampling=sampling,
            stops=stops,
            limit=self._engine.config.max_context,
            done=lambda generated: _settle(answer, generated),
        )

    def _take(self) -> None:
        """Take the answer in, once it is there.

        Not from a callback of the future, which may run after whoever waits for it has gone on.
        """
        if self._drawing is None or not self._drawing[1].done():
            return
        job, answer = self._drawing
        self._drawing = None
        if not answer.cancelled() and answer.exception() is None and answer.result().ids:
            self._ids += answer.result().ids
            self._computed = job.marks[: len(self._ids) - 1]

    def _check(self, doing: str) -> None:
        self._take()
        if self._closed:
            raise RuntimeError(f"cannot {doing} a session that is closed; open another one")
        if self._drawing is not None:
            raise RuntimeError(f"cannot {doing} a session while it draws an answer; wait for it")


class Engine:
    """Samples answers to prompts of token ids.

    Args:
        model: decoder and weights; its trainable part is the adapter `base`.
        stop_ids: ids that end every answer.
        config: sizes of cache and dispatches.

    Attributes:
        config: the same with nothing left open.
        stop_ids: likewise.
        base: the adapter that the model came with.
    """

    def __init__(
        self, model: Model, *, stop_ids: Sequence[int], config: EngineConfig | None = None
    ):
        self.stop_ids = frozenset(int(i) for i in stop_ids)
        device = _device(model)
        dtype = str(model.decoder.dtype)
        self.config = resolve(config or EngineConfig(), model.config, dtype=dtype, device=device)
        self._programs = Programs(model, self.config)
        self._scheduler = Scheduler(self._programs, self.config)
        self._vocabulary = model.config.vocab_size
        self._versions = itertools.count()
        self._orders: collections.deque[Callable[[], None]] = collections.deque()
        self._answers: dict[Future[GenerationResult], Adapter] = {}  # not settled yet
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._programs.compile_all(self._programs.leaves(model.trainable))
        self.base = self.load_adapter(model.trainable)

    @property
    def counters(self) -> Counters:
        """What was done so far."""
        return self._scheduler.counters

    @property
    def compile_count(self) -> int:
        """Number of programs compiled so far; after the start it does not grow."""
        return self._programs.compile_count

    def load_adapter(self, trainable: nnx.State) -> Adapter:
        """Hold trained parameters beside those held already; nothing is compiled.

        Sessions of several adapters may be open at once; dispatches are of one each.

        Raises:
            ConfigError: they are not shaped as those that the model came with.
        """
        adapter = Adapter(self, next(self._versions))
        leaves = self._programs.leaves(trainable)
        self._order(lambda: self._scheduler.load(adapter.version, leaves))
        return adapter

    def unload_adapter(self, adapter: Adapter) -> None:
        """Let an adapter go, and what was computed with it; twice is fine.

        Answers that are being drawn with it are cancelled, and its sessions draw no more.

        Raises:
            ConfigError: it is another engine's.
        """
        self._own(adapter)
        with self._lock:
            adapter.loaded = False
            answers = [answer for answer, of in self._answers.items() if of is adapter]
        for answer in answers:
            answer.cancel()
        self._order(lambda: self._scheduler.unload(adapter.version))

    def open(self, ids: Sequence[int] = (), *, adapter: Adapter | None = None) -> Session:
        """Begin a conversation with these tokens.

        Raises:
            ConfigError: the model has no such token, or the adapter is another engine's.
        """
        adapter = adapter or self.base
        self._own(adapter)
        return Session(self, adapter, ids, np.zeros(0, np.int64))

    def release_cache(self) -> None:
        """Give the cache's memory back until the next answer; what was in it is computed again.

        Raises:
            RuntimeError: while answers are being drawn, after `close`, or from the callback of an
                answer, for which the engine waits.
        """
        done: Future[None] = Future()
        if self._thread is threading.current_thread():
            raise RuntimeError("an answer's callback cannot release: the engine waits for it")
        with self._lock:
            if self._closing:
                raise RuntimeError("the engine is closed; its memory goes with its last reference")
            self._append(lambda: self._release(done))
        done.result()

    def close(self, *, wait: bool = True) -> None:
        """Take no more requests and end the thread; twice is fine.

        Args:
            wait: draw the answers that were asked for first; else they are cancelled.
        """
        with self._lock:
            self._closing = True
            answers = () if wait else tuple(self._answers)
        for answer in answers:
            answer.cancel()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(wait=exception[0] is None)

    def checked(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Token ids as they are kept (sessions call this).

        Raises:
            ConfigError: the model has no such token.
        """
        found = tuple(int(i) for i in ids)
        if found and not 0 <= min(found) <= max(found) < self._vocabulary:
            wrong = next(i for i in found if not 0 <= i < self._vocabulary)
            raise ConfigError(
                f"token id {wrong}: the model has those from 0 to {self._vocabulary - 1}; do "
                "tokenizer and weights belong together?"
            )
        return found

    def submit(
        self, job: GenerationRequest, answer: Future[GenerationResult], adapter: Adapter
    ) -> None:
        """Queue a session's job (sessions call this)."""
        with self._lock:
            if self._closing:
                raise RuntimeError("the engine is closed; make another one")
            if not adapter.loaded:
                raise RuntimeError(
                    "the session's adapter was unloaded: load it again and open another session"
                )
            self._answers[answer] = adapter
            self._append(lambda: self._begin(job, answer))
        answer.add_done_callback(lambda _: self._ended(job, answer))

    def _begin(self, job: GenerationRequest, answer: Future[GenerationResult]) -> None:
        if not answer.done():  # cancelled meanwhile, or failed with what else was asked for
            self._scheduler.submit(job)

    def _ended(self, job: GenerationRequest, answer: Future[GenerationResult]) -> None:
        with self._lock:
            del self._answers[answer]
        if answer.cancelled():
            answer.set_running_or_notify_cancel()  # tells `concurrent.futures.wait`
            self._order(lambda: self._scheduler.cancel(job))

    def _own(self, adapter: Adapter) -> None:
        if adapter.engine is not self:
            raise ConfigError("the adapter is another engine's: load it into this one, too")

    def _order(self, order: Callable[[], None]) -> None:
        with self._lock:
            self._append(order)

    def _append(self, order: Callable[[], None]) -> None:
        """Tell the thread to do something; with the lock held, under which it also ends."""
        self._orders.append(order)
        if self._thread is None and not self._closing:
            # A daemon, so that a program that forgets to close the engine still ends; but not
            # in the middle of a dispatch, which would end it with a crash.
            self._thread = threading.Thread(target=self._drive, name="eef-engine", daemon=True)
            atexit.register(_close, weakref.ref(self))
            self._thread.start()
        self._wake.set()

    def _drive(self) -> None:
        """Run the scheduler while there is work; its failure fails who waits, not the thread."""
        while True:
            worked = False
            try:
                while self._orders:
                    self._orders.popleft()()
                worked = self._scheduler.tick()
            except BaseException as error:  # without the thread all would wait for ever
                self._fail(error)
            if worked or self._orders:
                continue
            with self._lock:
                if self._closing and not self._orders and not self._scheduler.busy:
                    return
            self._wake.wait()
            self._wake.clear()

    def _release(self, done: Future[None]) -> None:
        if self._scheduler.busy:
            done.set_exception(RuntimeError("answers are being drawn; wait for them, or cancel"))
            return
        try:
            self._scheduler.clear()
            self._programs.clear()
        except Exception as error:
            done.set_exception(error)
            raise
        done.set_result(None)

    def _fail(self, error: BaseException) -> None:
        """Fail all answers; the cache may be half written, so it is let go."""
        self._scheduler.clear()
        self._programs.clear()
        with self._lock:
            answers = tuple(self._answers)
        for answer in answers:
            _settle(answer, error)


def _settle(answer: Future[GenerationResult], generated: GenerationResult | BaseException) -> None:
    try:
        if isinstance(generated, GenerationResult):
            answer.set_result(generated)
        elif isinstance(generated, Exception) and not isinstance(generated, StopIteration):
            answer.set_exception(generated)
        else:  # what asyncio's futures do not take, or take for an order to whoever waits
            answer.set_exception(RuntimeError(f"the answer failed with {generated!r}"))
    except InvalidStateError:
        pass  # it was cancelled meanwhile
    except BaseException:
        _log.exception("a callback of an answer raised")  # as futures do for `Exception`


def _close(engine: "weakref.ref[Engine]") -> None:
    """Cancel what is left of an engine when the program ends."""
    left = engine()
    if left is not None:
        left.close(wait=False)


def _device(model: Model) -> jax.Device:
    leaf = jax.tree.leaves((model.frozen, model.trainable))[0]
    return next(iter(leaf.devices()))
