"""What each dispatch computes: answers are admitted, filled, drawn, preempted and delivered here.

Continuous batching: whoever waits gets into the next dispatch that has room. A prompt's tokens are
prefilled in runs, many conversations' in one dispatch; once nothing is left to prefill, a decode
dispatch draws some tokens for every conversation that is ready. When pages run out, the answer
admitted last gives its own up and is made again later, with the same bits.

Single-threaded. Knows jobs, pages and programs; knows no sessions, threads or text.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from eef_jax.engine.config import EngineConfig, has_one_reader
from eef_jax.engine.pages import BlockTable, Key, OutOfPages, PageAllocator, PrefixMatch
from eef_jax.engine.programs import Leaves, Programs
from eef_jax.engine.request import GenerationRequest

Kind = Literal["prefill", "decode"]
Run = tuple[GenerationRequest, int, int]  # positions from the first up to the second
PATIENCE = 0.01  # share of a prefill that each one which passes a depth over counts for
_NOTHING = PrefixMatch(full=(), tail=None, common=0, ready=True, length=0)


@dataclasses.dataclass(slots=True, kw_only=True)
class Counters:
    """What the engine did since it was made.

    Attributes:
        prefilled: tokens computed by prefills.
        reused: tokens of admitted conversations that were there already.
        copied: pages copied, because somebody else read them or they were shared in part.
        generated: tokens drawn.
        replayed: drawn tokens computed once more after a preemption.
        preempted: times an answer had to give up its pages.
        dispatches: programs run, by name.
        filled: share of a dispatch that was used, summed over dispatches, by name.
    """

    prefilled: int = 0
    reused: int = 0
    copied: int = 0
    generated: int = 0
    replayed: int = 0
    preempted: int = 0
    dispatches: dict[str, int] = dataclasses.field(default_factory=dict)
    filled: dict[str, float] = dataclasses.field(default_factory=dict)

    def totals(self) -> dict[str, int]:
        """The counts, by name."""
        names = ("prefilled", "reused", "copied", "generated", "replayed", "preempted")
        return {name: getattr(self, name) for name in names}

    def dispatched(self, name: str, filled: float) -> None:
        """Count one dispatch."""
        self.dispatches[name] = self.dispatches.get(name, 0) + 1
        self.filled[name] = self.filled.get(name, 0.0) + filled


class Scheduler:
    """Jobs over the programs of one model.

    Args:
        programs: what computes.
        config: sizes, none of them open.

    Attributes:
        pages: the book of pages.
        counters: what was done so far.
    """

    def __init__(self, programs: Programs, config: EngineConfig):
        self.counters = Counters()
        self._programs = programs
        self._config = config
        self._adapters: dict[int, Leaves] = {}
        self._admissions = 0
        self.clear()

    @property
    def busy(self) -> bool:
        """Whether any job has no answer yet."""
        return bool(self._waiting or self._running)

    def clear(self) -> None:
        """Forget all jobs and pages."""
        one = has_one_reader(self._config.attention)
        self.pages = PageAllocator(self._config.num_pages, self._config.page_size, one_reader=one)
        self._waiting: list[GenerationRequest] = []
        self._running: list[GenerationRequest] = []
        self._slots = list(range(self._config.max_num_seqs))[::-1]
        self._passed: dict[tuple[Kind, int], int] = {}

    def load(self, version: int, adapter: Leaves) -> None:
        """Make an adapter known by a version that was never used before."""
        self._adapters[version] = adapter

    def unload(self, version: int) -> None:
        """Drop an adapter, its jobs (without a word) and its pages."""
        for job in [job for job in self._waiting + self._running if job.adapter == version]:
            self.cancel(job)
        self.pages.forget(_root(version))
        self._adapters.pop(version, None)

    def submit(self, job: GenerationRequest) -> None:
        """Ask for an answer; its `done` is called from a later `tick`."""
        if job.known > job.limit:
            job.done(job.answer("context"))
        else:
            self._waiting.append(job)

    def cancel(self, job: GenerationRequest) -> None:
        """Drop a job, wherever it is; one that is not here is ignored."""
        if job in self._running:
            self._retire(job)
        elif job in self._waiting:
            self._waiting.remove(job)

    def tick(self) -> bool:
        """Admit what can be admitted; then prefill, or decode where nothing is left to prefill.

        A decode costs as much for few rows as for all, and who is prefilled late draws after the
        others, alone: that costs more than prefills that are not full. Every answer takes a decode,
        so prefills run out. Adapters take turns.

        Returns:
            Whether anything was run.
        """
        self._admit()
        groups: dict[tuple[Kind, int], list[GenerationRequest]] = {}
        for job in self._running:
            kind: Kind = "prefill" if job.filling else "decode"
            groups.setdefault((kind, job.adapter), []).append(job)
        if not groups:
            return False
        self._passed = {group: self._passed.get(group, -1) + 1 for group in groups}
        chosen = max(groups, key=lambda group: (group[0] == "prefill", self._passed[group]))
        del self._passed[chosen]
        (self._prefill if chosen[0] == "prefill" else self._decode)(groups[chosen])
        return True

    def _admit(self) -> None:
        """Admit jobs in order; one whose prefix somebody else is computing lets others pass."""
        held: list[GenerationRequest] = []
        for index, job in enumerate(self._waiting):
            if not self._slots:
                held += self._waiting[index:]
                break
            root, body = _root(job.adapter), job.marks[:-1]
            match = self.pages.match(root, body)
            if not match.ready:
                held.append(job)
                continue
            new = -(-job.known // self.pages.size) - len(match.full)
            # A page in hand for each that draws, or the newcomer would soon be preempted.
            if self._running and new + self._growing() > self.pages.available:
                held += self._waiting[index:]
                break
            if not self._place(job, root, match):
                held += self._waiting[index:]
                break
        self._waiting = held

    def _growing(self) -> int:
        """Running jobs that may need another page."""
        size = self.pages.size
        return sum(job.end > len(_table(job)) * size for job in self._running)

    def _place(self, job: GenerationRequest, root: Key, match: PrefixMatch) -> bool:
        """Give a job its pages and slot; False if there are no pages."""
        body = job.marks[:-1]
        try:
            job.chain, copies = self.pages.take(root, body, match)
        except OutOfPages:
            if self._running:
                return False
            # What was found is in the way of what is missing: compute it all.
            match = _NOTHING
            job.chain, copies = self.pages.take(root, body, match)
        if copies:
            self._programs.copy(copies)
        job.slot, job.cursor, job.order = self._slots.pop(), match.length, self._admissions
        self._admissions += 1
        self._running.append(job)
        self.counters.copied += len(copies)
        self.counters.reused += match.length
        if not job.logprobs:
            job.prefilled = job.known - match.length
        return True

    def _prefill(self, jobs: Sequence[GenerationRequest]) -> None:
        """Prefill runs of as many jobs as a dispatch has room for, oldest first."""
        runs, width = self._runs(sorted(jobs, key=lambda job: job.order))
        chunks = self._programs.empty_prefill(width)
        tokens, at = np.zeros(self._config.prefill_tokens, np.int32), 0
        for row, (job, start, stop) in enumerate(runs):
            here = slice(at, at + stop - start)
            tokens[here] = job.ids(start, stop)
            chunks.positions[here] = np.arange(start, stop)
            chunks.row[here] = row
            chunks.column[here] = np.arange(stop - start)
            chunks.token[row, : stop - start] = np.arange(here.start, here.stop)
            table = _table(job)[:width]
            chunks.table[row, : len(table)] = table
            at = here.stop
        self._programs.prefill(self._adapters[jobs[0].adapter], chunks, tokens)
        for job, start, stop in runs:
            self.pages.computed(_chain(job), start, job.marks[start:stop])
            job.cursor = stop
        self.counters.prefilled += at
        self.counters.dispatched("prefill", at / len(tokens))

    def _runs(self, jobs: Sequence[GenerationRequest]) -> tuple[list[Run], int]:
        """Choose the runs of a prefill, and how many pages it looks at.

        A dispatch looks at as many pages for each run as its deepest one needs, so runs of one
        depth go together: the depth with most tokens (or whose jobs were passed over longest) is
        served, and shallower ones fill what room is left.
        """
        depths: dict[int, list[Run]] = {}
        patience: dict[int, int] = {}
        for job in jobs:
            width = self._config.prefill_bucket(
                min(job.cursor + self._config.prefill_chunk, job.run)
            )
            end = min(job.run, width * self._config.page_size)
            for start in range(job.cursor, end, self._config.prefill_chunk):
                run = (job, start, min(end, start + self._config.prefill_chunk))
                depths.setdefault(width, []).append(run)
            patience[width] = max(patience.get(width, 0), job.passed)
            job.passed += 1
        room = self._config.prefill_tokens

        def gain(width: int) -> float:
            tokens = sum(stop - start for _, start, stop in depths[width])
            return min(tokens, room) + PATIENCE * room * patience[width]

        deepest = max(depths, key=gain)
        runs: list[Run] = []
        for width in sorted((width for width in depths if width <= deepest), reverse=True):
            for job, start, stop in depths[width]:
                if not room or len(runs) == self._config.prefill_seqs:
                    return runs, deepest
                stop = min(stop, start + room)
                runs.append((job, start, stop))
                room, job.passed = room - (stop - start), 0
        return runs, deepest

    def _decode(self, jobs: Sequence[GenerationRequest]) -> None:
        """Draw some tokens for every job that is ready."""
        ready = [job for job in sorted(jobs, key=lambda job: job.order) if self._grow(job)]
        ready = [job for job in ready if job.chain is not None]  # a later one may have lost out
        if not ready:
            return
        steps, n = self._programs.empty_decode(), self._config.decode_steps
        for job in ready:
            slot, first, table = job.slot, job.cursor, _table(job)
            steps.tokens[slot], steps.positions[slot] = job.id(first), first
            steps.last[slot] = min(job.last, len(table) * self.pages.size - 1)
            replayed = job.ids(first + 1, min(first + 1 + n, job.known))
            steps.forced[: len(replayed), slot] = replayed
            steps.table[slot, : len(table)] = table
            job.fill(steps.draws)
        ids, logprobs = self._programs.decode(self._adapters[jobs[0].adapter], steps)
        for job in ready:
            self._drawn(job, ids[:, job.slot], logprobs[:, job.slot])
        self.counters.dispatched("decode", len(ready) / self._config.max_num_seqs)

    def _drawn(self, job: GenerationRequest, ids: np.ndarray, logprobs: np.ndarray) -> None:
        """Take a row's tokens in; those after its end are dropped."""
        for token, logprob in zip(ids.tolist(), logprobs.tolist(), strict=True):
            if token < 0:
                return
            self.pages.computed(_chain(job), job.cursor, job.marks[job.cursor : job.cursor + 1])
            job.cursor += 1
            if job.cursor < job.known:
                self.counters.replayed += 1
                continue
            if math.isnan(logprob):
                # Whatever shares the cache may have met them, too: nobody's answer is to be had.
                raise FloatingPointError(
                    f"the model's scores at position {job.known} are no numbers: did its training "
                    "diverge, or does its dtype overflow?"
                )
            self.counters.generated += 1
            try:
                finish = job.draw(token, logprob)
            except BaseException as error:  # this job's own: the others go on
                self._retire(job)
                job.done(error)
                return
            if finish is not None:
                self._retire(job)
                job.done(job.answer(finish))
                return

    def _retire(self, job: GenerationRequest) -> None:
        """Take back a running job's pages and slot."""
        self._running.remove(job)
        self.pages.release(_chain(job))
        self._slots.append(job.slot)
        job.chain, job.slot, job.cursor = None, -1, 0

    def _grow(self, job: GenerationRequest) -> bool:
        """Make room for what a dispatch may feed; False if the job had to give up its own."""
        if job.chain is None:
            return False
        wanted = min(job.last, job.cursor + self._config.decode_steps - 1) // self.pages.size + 1
        while len(_table(job)) < wanted:
            try:
                self.pages.grow(_chain(job))
            except OutOfPages:
                if len(_table(job)) * self.pages.size > job.cursor:
                    return True  # enough for now
                victim = max(self._running, key=lambda other: other.order)
                self._retire(victim)
                self._waiting.insert(0, victim)
                self.counters.preempted += 1
                if victim is job:
                    return False
        return True


def _root(version: int) -> Key:
    return b"adapter %d" % version


def _chain(job: GenerationRequest) -> BlockTable:
    assert job.chain is not None
    return job.chain


def _table(job: GenerationRequest) -> list[int]:
    return _chain(job).table
