"""The scheduler: continuous batching with chunked prefill, prefix sharing and preemption.

A waiting request enters the next dispatch that has room. Prefill dispatches compute chunks of many
prompts; decode dispatches generate a few tokens for every running request. When pages run out, the
request admitted last is preempted and resumed later with the same bits. Single-threaded.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int32

from eef_jax.engine.chunks import choose_chunks
from eef_jax.engine.config import has_exclusive_pages
from eef_jax.engine.counters import Counters
from eef_jax.engine.functions import Leaves
from eef_jax.engine.inputs import DecodeInputs, prefill_inputs
from eef_jax.engine.pages import OutOfPages, PageAllocator, PrefixKey, PrefixMatch
from eef_jax.engine.programs import Programs
from eef_jax.engine.request import GenerationRequest

Phase = Literal["prefill", "decode"]
Group = tuple[Phase, int]  # requests that can share a dispatch: their phase and adapter


class Scheduler:
    """Runs generation requests on the programs of one model.

    Args:
        programs: the compiled programs.
        allocator: by default one over all pages of the programs' cache.

    Attributes:
        programs: the compiled programs.
        allocator: owns the pages.
        counters: what was done so far.
    """

    def __init__(self, programs: Programs, allocator: PageAllocator | None = None):
        config = programs.config
        if allocator is None:
            exclusive_pages = has_exclusive_pages(config.attention)
            allocator = PageAllocator(
                config.num_pages, config.page_size, exclusive_pages=exclusive_pages
            )
        self.programs = programs
        self.allocator = allocator
        self.counters = Counters()
        self._config = config
        self._adapters: dict[int, Leaves] = {}
        self._admissions = 0
        self._skips: dict[Group, int] = {}
        self._clear_queues()

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._waiting or self._running)

    def reset(self) -> None:
        """Drop all requests without completing them, and free all pages and the cache."""
        self._clear_queues()
        self.allocator.reset()
        self.programs.free_cache()

    def add_adapter(self, version: int, leaves: Leaves) -> None:
        """Register an adapter under a version that was never used before."""
        self._adapters[version] = leaves

    def remove_adapter(self, version: int) -> None:
        """Drop an adapter, its pages and its requests; these are not completed."""
        for request in [r for r in self._waiting + self._running if r.adapter == version]:
            self.cancel(request)
        self.allocator.drop_tree(_root(version))
        self._adapters.pop(version, None)

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request; its `on_done` is called from a later `step`, or at once without room."""
        if request.num_tokens > request.max_context:
            request.complete("context")
        else:
            self._waiting.append(request)

    def cancel(self, request: GenerationRequest) -> None:
        """Drop a waiting or running request; unknown ones are ignored."""
        if request in self._running:
            self._retire(request)
        elif request in self._waiting:
            self._waiting.remove(request)

    def step(self) -> bool:
        """Admit what can be admitted and run one dispatch.

        Returns:
            Whether anything was run.
        """
        self._admit()
        groups: dict[Group, list[GenerationRequest]] = {}
        for request in self._running:
            phase: Phase = "prefill" if request.needs_prefill else "decode"
            groups.setdefault((phase, request.adapter), []).append(request)
        if not groups:
            return False
        # Prefills first: a decode costs as much for few rows as for all, so a request prefilled
        # late would decode alone at the end. With prefills first 48 episodes of SmolLM2 took 24
        # full decodes; when the two took turns, 40 at 60 %. Prefills cannot starve decodes, since
        # every request needs a decode before its next prefill. Adapters take turns.
        self._skips = {group: self._skips.get(group, -1) + 1 for group in groups}
        chosen = max(groups, key=lambda group: (group[0] == "prefill", self._skips[group]))
        del self._skips[chosen]
        run = self._prefill if chosen[0] == "prefill" else self._decode
        run(sorted(groups[chosen], key=lambda request: request.admission))
        return True

    def _clear_queues(self) -> None:
        self._waiting: list[GenerationRequest] = []
        self._running: list[GenerationRequest] = []
        self._free_rows = list(range(self._config.max_num_seqs))[::-1]
        self._skips.clear()

    def _admit(self) -> None:
        """Admit waiting requests in order.

        A request whose prefix another one is computing waits for it; later ones may overtake it.
        """
        waiting: list[GenerationRequest] = []
        for index, request in enumerate(self._waiting):
            root = _root(request.adapter)
            match = self.allocator.match(root, request.tags[:-1]) if self._free_rows else None
            if match is not None and not match.ready:
                waiting.append(request)
                continue
            if match is None or not self._place(request, root, match):
                waiting += self._waiting[index:]
                break
        self._waiting = waiting

    def _place(self, request: GenerationRequest, root: PrefixKey, match: PrefixMatch) -> bool:
        """Give a request its pages and row; False without enough pages."""
        allocator, body = self.allocator, request.tags[:-1]
        new = -(-request.num_tokens // allocator.page_size) - len(match.full_pages)
        # Keep a page for each request that grows, or the new one would soon be preempted.
        if self._running and new + self._count_growing() > allocator.num_available:
            return False
        try:
            request.block_table, copies = allocator.allocate(root, body, match)
        except OutOfPages:
            if self._running:
                return False
            # The matched pages occupy what is missing: compute everything anew.
            match = PrefixMatch()
            request.block_table, copies = allocator.allocate(root, body, match)
        if copies:
            self.programs.copy(copies)
        request.row, request.cursor = self._free_rows.pop(), match.length
        request.admission = self._admissions
        self._admissions += 1
        self._running.append(request)
        self.counters.copied += len(copies)
        self.counters.reused += match.length
        if not request.logprobs:  # else it was preempted, and counted before
            request.prefilled = request.num_tokens - match.length
        return True

    def _count_growing(self) -> int:
        """Running requests that may need another page."""
        size = self.allocator.page_size
        return sum(r.max_entries > len(r.table.pages) * size for r in self._running)

    def _prefill(self, requests: Sequence[GenerationRequest]) -> None:
        """Prefill chunks of as many requests as fit one dispatch."""
        chunks, width = choose_chunks(requests, self._config)
        view, tokens = prefill_inputs(chunks, self._config, width)
        self.programs.prefill(self._adapters[requests[0].adapter], view, tokens)
        for chunk in chunks:
            request = chunk.request
            tags = request.tags[chunk.start : chunk.stop]
            self.allocator.mark_computed(request.table, chunk.start, tags)
            request.cursor = chunk.stop
        computed = sum(map(len, chunks))
        self.counters.prefilled += computed
        self.counters.count_dispatch("prefill", computed / self._config.prefill_tokens)

    def _decode(self, requests: Sequence[GenerationRequest]) -> None:
        """Generate tokens for every request."""
        ready = [request for request in requests if self._reserve(request)]
        # Reserving pages for a later request may have preempted an earlier one.
        ready = [request for request in ready if request.block_table is not None]
        if not ready:
            return
        inputs = DecodeInputs.of(ready, self._config)
        ids, logprobs = self.programs.decode(self._adapters[ready[0].adapter], inputs)
        for request in ready:
            self._append(request, ids[:, request.row], logprobs[:, request.row])
        self.counters.count_dispatch("decode", len(ready) / self._config.max_num_seqs)

    def _append(
        self,
        request: GenerationRequest,
        ids: Int32[np.ndarray, " n"],
        logprobs: Float32[np.ndarray, " n"],
    ) -> None:
        """Append a row's tokens to its request; tokens after its end are dropped."""
        for token, logprob in zip(ids.tolist(), logprobs.tolist(), strict=True):
            if token < 0:
                return
            at = request.cursor
            self.allocator.mark_computed(request.table, at, request.tags[at : at + 1])
            request.cursor += 1
            if request.cursor < request.num_tokens:
                self.counters.replayed += 1
                continue
            if math.isnan(logprob):
                # Requests that share pages may have read NaN, too, so all of them fail.
                raise FloatingPointError(
                    f"the model's logits at position {request.num_tokens} are NaN: did its "
                    "training diverge, or does its dtype overflow?"
                )
            self.counters.generated += 1
            try:
                reason = request.append(token, logprob)
            except BaseException as error:  # of this request's `stop_fn`: the others continue
                self._retire(request)
                request.on_done(error)
                return
            if reason is not None:
                self._retire(request)
                request.complete(reason)
                return

    def _retire(self, request: GenerationRequest) -> None:
        """Take back a running request's pages and row."""
        self._running.remove(request)
        self.allocator.release(request.table)
        self._free_rows.append(request.row)
        request.block_table, request.row, request.cursor = None, -1, 0

    def _reserve(self, request: GenerationRequest) -> bool:
        """Allocate the pages that a decode dispatch may fill.

        When none are left, requests are preempted, the one admitted last first.

        Returns:
            False if the request itself was preempted.
        """
        if request.block_table is None:
            return False
        size, pages = self.allocator.page_size, request.table.pages
        last = min(request.last_decode, request.cursor + self._config.decode_steps - 1)
        while len(pages) < last // size + 1:
            try:
                self.allocator.append_page(request.table)
            except OutOfPages:
                if len(pages) * size > request.cursor:
                    return True  # enough for at least one step
                victim = max(self._running, key=lambda other: other.admission)
                self._preempt(victim)
                if victim is request:
                    return False
        return True

    def _preempt(self, request: GenerationRequest) -> None:
        self._retire(request)
        self._waiting.insert(0, request)
        self.counters.preempted += 1


def _root(version: int) -> PrefixKey:
    return b"adapter %d" % version
