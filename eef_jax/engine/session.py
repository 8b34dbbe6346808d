"""A session: one conversation that is appended to, generated in, forked and closed."""

import dataclasses
import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from jaxtyping import Int64

from eef_jax.engine.request import GenerationRequest, GenerationResult, prompt_tags
from eef_jax.engine.sampling import MAX_STOP_IDS, SamplingParams
from eef_jax.engine.worker import Adapter, settle
from eef_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """What all sessions of an engine have in common.

    Attributes:
        vocab_size: number of token ids that the model has.
        max_context: tokens a session can hold.
        stop_ids: ids that end every generation.
    """

    vocab_size: int
    max_context: int
    stop_ids: frozenset[int]

    def validated(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return token ids as plain ints.

        Raises:
            ConfigError: the model does not have one of them.
        """
        found = tuple(int(i) for i in ids)
        if found and not 0 <= min(found) <= max(found) < self.vocab_size:
            wrong = next(i for i in found if not 0 <= i < self.vocab_size)
            raise ConfigError(
                f"token id {wrong}: the model has ids from 0 to {self.vocab_size - 1}; do "
                "tokenizer and weights belong together?"
            )
        return found


class Session:
    """A conversation; made by `Engine.open`.

    A session owns no memory of the device: its keys and values are found by its tokens while the
    cache holds them, and computed again otherwise.
    """

    def __init__(
        self,
        adapter: Adapter,
        ids: Sequence[int],
        *,
        limits: SessionLimits,
        computed: Sequence[int] | Int64[np.ndarray, " n"] = (),
    ):
        self._adapter = adapter
        self._limits = limits
        self._ids = limits.validated(ids)
        self._computed = computed  # tags of the entries that its requests have computed
        self._in_flight: tuple[GenerationRequest, Future[GenerationResult]] | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens so far, appended and generated."""
        with self._lock:
            self._collect()
            return self._ids

    def append(self, ids: Sequence[int]) -> None:
        """Append tokens that were not generated here, such as an observation's.

        Raises:
            RuntimeError: while a request is in flight, or after `close`.
            ConfigError: the model does not have one of the ids.
        """
        with self._lock:
            self._check_idle("append to")
            self._ids += self._limits.validated(ids)

    def generate(
        self, sampling: SamplingParams, key: Sequence[int] = (0, 0)
    ) -> Future[GenerationResult]:
        """Generate tokens; they then belong to the session.

        The result depends on the weights, on the session's history (its tokens, and which of them
        were generated), on `sampling` and on `key`; on nothing else that the engine runs.

        Args:
            sampling: sampling parameters.
            key: two 32-bit words, from 0.

        Returns:
            A future; cancelling it drops the request and leaves the session as it was.

        Raises:
            RuntimeError: while another request is in flight, after `close`, or when the engine is
                closed or has unloaded the session's adapter.
            ConfigError: the session is empty, the key is not two such words, or there are more stop
                ids than `MAX_STOP_IDS`.
        """
        with self._lock:
            self._check_idle("generate in")
            if len(key) != 2 or not all(0 <= word < 1 << 32 for word in key):
                raise ConfigError(f"key {key}: expected two numbers from 0 to {(1 << 32) - 1}")
            if not self._ids:
                raise ConfigError("cannot generate from no tokens: open the session with a prompt")
            future: Future[GenerationResult] = Future()
            request = self._request(sampling, key, future)
            self._adapter.worker.submit(request, future, self._adapter)
            self._in_flight = request, future
        return future

    def fork(self) -> "Session":
        """Return another session with the same history; pages are shared until the two differ.

        Raises:
            RuntimeError: while a request is in flight, or after `close`.
        """
        with self._lock:
            self._check_idle("fork")
            return Session(self._adapter, self._ids, limits=self._limits, computed=self._computed)

    def close(self) -> None:
        """End the session and cancel its request in flight; closing twice is fine."""
        with self._lock:
            self._closed, in_flight = True, self._in_flight
        if in_flight is not None:
            in_flight[1].cancel()

    def _request(
        self, sampling: SamplingParams, key: Sequence[int], future: Future[GenerationResult]
    ) -> GenerationRequest:
        stop_ids = self._limits.stop_ids | frozenset(sampling.stop_ids)
        if len(stop_ids) > MAX_STOP_IDS:
            raise ConfigError(
                f"{len(stop_ids)} stop ids: the device holds {MAX_STOP_IDS} of a request, so stop "
                "at the rarer ones with SamplingParams.stop_fn"
            )
        return GenerationRequest(
            adapter=self._adapter.version,
            tags=prompt_tags(self._ids, self._computed),
            prompt_length=len(self._ids),
            key=(key[0], key[1]),
            sampling=sampling,
            stop_ids=stop_ids,
            max_context=self._limits.max_context,
            on_done=functools.partial(settle, future),
        )

    def _collect(self) -> None:
        """Append the tokens of a finished request.

        Not done in a callback of the future: callbacks can run after a thread that waits for the
        result has gone on.
        """
        if self._in_flight is None or not self._in_flight[1].done():
            return
        request, future = self._in_flight
        self._in_flight = None
        if not future.cancelled() and future.exception() is None and future.result().ids:
            self._ids += future.result().ids
            self._computed = request.tags[: len(self._ids) - 1]

    def _check_idle(self, action: str) -> None:
        self._collect()
        if self._closed:
            raise RuntimeError(f"cannot {action} a session that is closed; open another one")
        if self._in_flight is not None:
            raise RuntimeError(f"cannot {action} a session while it generates; wait for the result")
