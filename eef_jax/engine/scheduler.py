"""The engine: takes prompts of many conversations at any time, decides what each dispatch computes.

Continuous batching without barriers: a dispatch is a prefill of chunks or one decode step, all of one
bucket of context length, and the fullest one goes first. Knows ids, sessions and programs; knows no
text and no threads (one thread calls it, see `policies.local`).
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
                f"max_context {shapes.max_context} exceeds the model's {model.config.max_positions} "
                "positions: lower it"
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
            session: name of the conversation: what it shares with its last prompt is not computed again.
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
        """Admit what can be admitted, then run the fullest dispatch.

        Returns:
            Whether anything was run. If not, whoever waits does so for a slot: until a `release`.
        """
        self._admit()
        fill, bucket, work = self._fullest()
        if work and fill:
            self._prefill(bucket, work)
        elif work:
            self._decode(bucket, work)
        return bool(work)

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
                self._programs.copy(source, job.slot, length=self.shapes.bucket(common))
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

    def _fullest(self) -> tuple[bool, int, list]:
        """Find the dispatch (prefill or decode, and its bucket) with the largest share of rows."""
        groups: dict[tuple[bool, int], list] = {}
        for job in self._drawing:
            groups.setdefault((False, self.shapes.bucket(job.cursor + 1)), []).append(job)
        for job in self._filling:
            self._chunks(job, groups)
        best, best_share = (False, 0), 0.0
        for (fill, bucket), work in groups.items():
            share = min(1.0, len(work) / self.shapes.rows(bucket, decode=not fill))
            if share > best_share:
                best, best_share = (fill, bucket), share
        return *best, groups.get(best, [])

    def _chunks(self, job: _Job, groups: dict[tuple[bool, int], list]) -> None:
        """Cut a job's next positions into chunks at absolute multiples, while in one bucket.

        Chunks of one job may share a dispatch: each layer writes all rows before any row attends.
        """
        size, end = self.shapes.chunk, len(job.prompt) - 1
        bucket, start = 0, job.cursor
        while start < end:
            stop = min(end, (start // size + 1) * size)
            if bucket and self.shapes.bucket(stop) != bucket:
                return
            bucket = self.shapes.bucket(stop)
            groups.setdefault((True, bucket), []).append((job, start, stop))
            start = stop

    def _prefill(self, bucket: int, work: list[tuple[_Job, int, int]]) -> None:
        rows, size = self.shapes.rows(bucket, decode=False), self.shapes.chunk
        tokens = np.zeros((rows, size), np.int32)
        positions = np.full((rows, size), -1, np.int32)
        slots = np.zeros(rows, np.int32)
        work = work[:rows]
        for row, (job, start, stop) in enumerate(work):
            at = start % size
            tokens[row, at : at + stop - start] = job.prompt[start:stop]
            positions[row, at : at + stop - start] = np.arange(start, stop)
            slots[row] = job.slot
        self._programs.prefill(tokens, positions, slots, length=bucket)
        self.counters.dispatched("prefill", np.count_nonzero(positions >= 0) / positions.size)
        for job, _, stop in work:
            self._advance(job, stop)

    def _decode(self, bucket: int, work: list[_Job]) -> None:
        rows = self.shapes.rows(bucket, decode=True)
        tokens, positions = np.zeros(rows, np.int32), np.full(rows, -1, np.int32)
        slots, keys = np.zeros(rows, np.int32), np.zeros((rows, 2), np.uint32)
        temperature, top_p = np.zeros(rows, np.float32), np.ones(rows, np.float32)
        work = work[:rows]
        for row, job in enumerate(work):
            tokens[row], positions[row], slots[row] = job.last, job.cursor, job.slot
            keys[row] = job.key
            temperature[row], top_p[row] = job.sampling.temperature, job.sampling.top_p
        ids, logprobs = self._programs.decode(
            tokens, positions, slots, keys, temperature, top_p, length=bucket
        )
        self.counters.dispatched("decode", len(work) / rows)
        self.counters.generated += len(work)
        for row, job in enumerate(work):
            self._drawn(job, int(ids[row]), float(logprobs[row]))

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
