"""The engine: takes prompts of many conversations at any time, decides what each dispatch computes.

Continuous batching without barriers: a dispatch is a prefill of chunks or one decode step, all of
one length of context, whichever fills its rows better. Knows ids, sessions and programs;
knows no text and no threads (one thread calls it, see `policies.local`).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from flax import nnx

from eef_jax.engine.cache import Slots
from eef_jax.engine.decode import Programs, Shapes
from eef_jax.engine.sampling import Sampling
from eef_jax.errors import ConfigError
from eef_jax.models.base import Model
from eef_jax.types import FinishReason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """An answer in ids.

    Attributes:
        ids: drawn ids, the stop id included where it was drawn.
        logprobs: their log-probabilities under the distribution they were drawn from.
        finish: `stop`, `length` (new-token cap) or `context` (the context is full).
        prefilled: prompt tokens computed for this answer; the others were in the cache.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: FinishReason
    prefilled: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Counters:
    """What the engine did since it was made.

    Attributes:
        prefilled: prompt tokens computed.
        copied: prompt tokens copied from another conversation's slot.
        generated: tokens drawn.
        dispatches: programs run, by name.
        filled: share of a dispatch's rows that were used, summed over dispatches, by name.
    """

    prefilled: int = 0
    copied: int = 0
    generated: int = 0
    dispatches: dict[str, int] = dataclasses.field(default_factory=dict)
    filled: dict[str, float] = dataclasses.field(default_factory=dict)

    def tokens(self) -> dict[str, int]:
        """The counts of tokens, by name."""
        return {
            "prefilled": self.prefilled,
            "copied": self.copied,
            "generated": self.generated,
        }

    def dispatched(self, name: str, filled: float) -> None:
        """Count one dispatch."""
        self.dispatches[name] = self.dispatches.get(name, 0) + 1
        self.filled[name] = self.filled.get(name, 0.0) + filled


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """One prompt on its way to an answer."""

    session: str
    prompt: np.ndarray
    key: tuple[int, int]
    sampling: Sampling
    done: Callable[[Generated], None]
    slot: int = -1
    cursor: int = 0  # next position to compute
    kept: int = 0
    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)

    @property
    def last(self) -> int:
        """The token that the next decode step feeds."""
        return self.ids[-1] if self.ids else int(self.prompt[-1])


_Chunk = tuple[_Job, int, int]  # positions from the first up to the second


class Engine:
    """Samples answers to prompts of token ids.

    Args:
        model: decoder and weights.
        stop_ids: ids that end an answer.
        shapes: sizes of cache and dispatches.

    Attributes:
        counters: what was done so far.
    """

    def __init__(self, model: Model, *, stop_ids: Sequence[int], shapes: Shapes | None = None):
        shapes = shapes or Shapes()
        if shapes.max_context > model.config.max_positions:
            raise ConfigError(
                f"max_context {shapes.max_context} exceeds the model's "
                f"{model.config.max_positions} positions: lower it"
            )
        self.shapes = shapes
        self.counters = Counters()
        self._programs = Programs(model, shapes)
        self._frozen = model.frozen
        self._stops = frozenset(stop_ids)
        self._slots = Slots(shapes.slots, shapes.max_context)
        self._waiting: list[_Job] = []
        self._filling: list[_Job] = []
        self._drawing: list[_Job] = []

    @property
    def compiles(self) -> int:
        """Number of programs compiled so far."""
        return self._programs.compiles

    @property
    def busy(self) -> bool:
        """Whether any prompt has no answer yet."""
        return bool(self._waiting or self._filling or self._drawing)

    def set_trainable(self, trainable: nnx.State) -> None:
        """Sample with new trained parameters; whatever the old ones computed is forgotten.

        Raises:
            RuntimeError: while prompts wait for answers: these would be of two policies.
        """
        if self.busy:
            raise RuntimeError("new weights while prompts wait for answers; let them end first")
        self._programs.load(self._frozen, trainable)
        self._slots.clear()

    def submit(
        self,
        session: str,
        prompt: Sequence[int] | np.ndarray,
        *,
        key: tuple[int, int],
        sampling: Sampling,
        done: Callable[[Generated], None],
    ) -> None:
        """Ask for an answer; `done` is called from a later `tick`.

        Args:
            session: the conversation: what it shares with its last prompt is not computed again.
            prompt: i32[t] the whole conversation.
            key: two 32-bit words; with the model and the prompt they decide the answer.
            sampling: how to draw.
            done: called with the answer.
        """
        prompt = np.asarray(prompt, np.int32)
        if len(prompt) > self.shapes.max_context:
            done(Generated(ids=(), logprobs=(), finish="context", prefilled=0))
            return
        job = _Job(session=session, prompt=prompt, key=key, sampling=sampling, done=done)
        self._waiting.append(job)

    def generate(
        self,
        session: str,
        prompt: Sequence[int] | np.ndarray,
        *,
        key: tuple[int, int] = (0, 0),
        sampling: Sampling,
    ) -> Generated:
        """`submit` and work until the answer is there (others that wait are served too)."""
        answers: list[Generated] = []
        self.submit(session, prompt, key=key, sampling=sampling, done=answers.append)
        while not answers:
            if not self.tick():
                raise RuntimeError(
                    f"session {session!r} waits for one of {self.shapes.slots} slots, all held: "
                    "release a session first"
                )
        return answers[0]

    def release(self, session: str) -> None:
        """End a conversation; a prompt of it that has no answer yet gets none."""
        for queue in (self._waiting, self._filling, self._drawing):
            for job in [job for job in queue if job.session == session]:
                queue.remove(job)
                if job.slot >= 0:
                    self._slots.stop(job.slot)
        self._slots.release(session)

    def tick(self) -> bool:
        """Admit what can be admitted, then run the dispatch that is filled best.

        Returns:
            Whether anything was run. If not, whoever waits does so for a slot: until a `release`.
        """
        self._admit()
        chunks, length = self._chunks()
        if not chunks and not self._drawing:
            return False
        if len(chunks) / self.shapes.rows >= len(self._drawing) / self.shapes.slots:
            self._prefill(chunks, length)
        else:
            self._decode()
        return True

    def _admit(self) -> None:
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            if self._place(job):
                self._filling.append(job)
                self._advance(job, job.cursor)
            else:
                self._waiting.append(job)

    def _place(self, job: _Job) -> bool:
        """Give a job its slot and find what of its prompt is there already."""
        body = job.prompt[:-1]
        slot = self._slots.of(job.session)
        if slot is not None:
            job.slot, job.kept = slot, self._slots.common(slot, body)
            self._slots.begin(slot, job.prompt, job.kept, fresh=job.kept == 0)
        else:
            if self._slots.full():
                return False
            source, common = self._slots.longest(body)
            if common > self._slots.computed[source]:
                return False  # another job is computing this very prefix: copy it when it is there
            job.slot, job.kept = self._slots.take(job.session, source if common else None), common
            if common and job.slot != source:
                self._programs.copy(source, job.slot, length=self.shapes.length(common))
            self._slots.begin(job.slot, job.prompt, common, fresh=True)
            self.counters.copied += common
        job.cursor = job.kept
        self.counters.prefilled += len(job.prompt) - job.kept
        return True

    def _advance(self, job: _Job, cursor: int) -> None:
        """Note how far a job's prompt is computed; once it is, let it draw."""
        job.cursor = cursor
        self._slots.computed[job.slot] = cursor
        if cursor >= len(job.prompt) - 1:
            self._filling.remove(job)
            self._drawing.append(job)

    def _chunks(self) -> tuple[list[_Chunk], int]:
        """Choose the chunks to prefill next, and the bucket that holds them.

        The bucket with most chunks is served; shorter ones fill what rows are left. Chunks of one
        job may share a dispatch: each layer writes all rows before any row attends.
        """
        buckets: dict[int, list[_Chunk]] = {}
        for job in self._filling:
            start, end = job.cursor, len(job.prompt) - 1
            length = self.shapes.length(min(start + self.shapes.chunk, end))
            while start < end:
                stop = min(end, start + self.shapes.chunk)
                if stop > length:
                    break
                buckets.setdefault(length, []).append((job, start, stop))
                start = stop
        rows = self.shapes.rows
        best = max(buckets, key=lambda length: min(rows, len(buckets[length])), default=0)
        lengths = sorted((length for length in buckets if length <= best), reverse=True)
        return [chunk for length in lengths for chunk in buckets[length]][:rows], best

    def _prefill(self, chunks: list[_Chunk], length: int) -> None:
        shape = (self.shapes.rows, self.shapes.chunk)
        tokens, positions = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        slots = np.zeros(shape[0], np.int32)
        for row, (job, start, stop) in enumerate(chunks):
            tokens[row, : stop - start] = job.prompt[start:stop]
            positions[row, : stop - start] = np.arange(start, stop)
            slots[row] = job.slot
        self._programs.prefill(tokens, positions, slots, length=length)
        self.counters.dispatched("prefill", np.count_nonzero(positions >= 0) / positions.size)
        for job, _, stop in chunks:
            self._advance(job, stop)

    def _decode(self) -> None:
        """Draw one token for every conversation that is ready."""
        slots = self.shapes.slots
        tokens, positions = np.zeros(slots, np.int32), np.full(slots, -1, np.int32)
        keys = np.zeros((slots, 2), np.uint32)
        temperature, top_p = np.zeros(slots, np.float32), np.ones(slots, np.float32)
        jobs = list(self._drawing)
        for job in jobs:
            tokens[job.slot], positions[job.slot], keys[job.slot] = job.last, job.cursor, job.key
            temperature[job.slot] = job.sampling.temperature
            top_p[job.slot] = job.sampling.top_p
        length = self.shapes.length(max(job.cursor for job in jobs) + 1)
        ids, logprobs = self._programs.decode(
            tokens, positions, keys, temperature, top_p, length=length
        )
        self.counters.dispatched("decode", len(jobs) / slots)
        self.counters.generated += len(jobs)
        for job in jobs:
            self._drawn(job, int(ids[job.slot]), float(logprobs[job.slot]))

    def _drawn(self, job: _Job, token: int, logprob: float) -> None:
        job.ids.append(token)
        job.logprobs.append(logprob)
        job.cursor += 1
        self._slots.computed[job.slot] = job.cursor
        finish: FinishReason
        if token in self._stops:
            finish = "stop"
        elif job.cursor >= self.shapes.max_context:
            finish = "context"
        elif len(job.ids) >= job.sampling.max_new_tokens:
            finish = "length"
        else:
            self._slots.extend(job.slot, job.cursor, token)
            return
        self._drawing.remove(job)
        job.done(
            Generated(
                ids=tuple(job.ids),
                logprobs=tuple(job.logprobs),
                finish=finish,
                prefilled=len(job.prompt) - job.kept,
            )
        )
