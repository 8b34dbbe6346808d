"""An in-flight generation request: its tokens, how each cache entry is computed, its progress.

A conversation's cache entries are a function of its provenance tags alone (see `pages`). A
preempted request is therefore resumed from its tags: prefilled entries are prefilled again, decoded
ones are decoded again with the tokens that were sampled then.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int32, Int64

from eef_jax.engine.pages import DECODED, BlockTable
from eef_jax.engine.sampling import MAX_STOP_IDS, NO_TOKEN, SamplingArrays, SamplingParams

Finish = Literal["stop", "text", "length", "context"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """What a request generated.

    Attributes:
        ids: generated tokens, including the stop id if one was sampled.
        logprobs: log-probability of each id under the distribution it was sampled from.
        finish: `stop` (a stop id was sampled), `text` (`SamplingParams.stop_fn` returned true),
            `length` (`max_new_tokens` reached), `context` (the context is full).
        prefilled: tokens of the conversation that were not in the cache.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    prefilled: int


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class GenerationRequest:
    """One prompt and the progress of its generation; the scheduler updates it in place.

    Attributes:
        adapter: version of the adapter to generate with.
        tags: provenance tags of all tokens known so far, prompt first.
        prompt_length: tokens of the prompt.
        key: two 32-bit words; together with model, adapter and tags they determine the result.
        sampling: sampling parameters.
        stop_ids: all ids that end the generation.
        max_context: tokens a conversation can hold.
        on_done: called with the result, or with the exception that the request failed with.
        logprobs: log-probabilities of the tokens generated so far.
        block_table: its pages; None while it waits.
        row: its row of decode dispatches; -1 while it waits.
        cursor: next position whose cache entry is to be computed.
        admission: running number of its last admission.
        skips: prefill dispatches in a row that left it out.
        prefilled: tokens of the conversation that were not in the cache, so far.
    """

    adapter: int
    tags: Int64[np.ndarray, " t"]
    prompt_length: int
    key: tuple[int, int]
    sampling: SamplingParams
    stop_ids: frozenset[int]
    max_context: int
    on_done: Callable[[GenerationResult | BaseException], None]
    logprobs: list[float] = dataclasses.field(default_factory=list)
    block_table: BlockTable | None = None
    row: int = -1
    cursor: int = 0
    admission: int = 0
    skips: int = 0
    prefilled: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens known so far."""
        return len(self.tags)

    @property
    def max_entries(self) -> int:
        """Cache entries that the longest possible generation needs."""
        return min(self.prompt_length + self.sampling.max_new_tokens - 1, self.max_context)

    @property
    def needs_prefill(self) -> bool:
        """Whether the next entry is to be prefilled rather than decoded."""
        return bool(self.tags[self.cursor] < DECODED)

    @property
    def run_end(self) -> int:
        """End of the run of entries, from the cursor on, that are all prefilled or all decoded."""
        prefilled = self.tags[self.cursor :] < DECODED
        other = np.flatnonzero(prefilled != prefilled[0])
        return self.cursor + int(other[0]) if len(other) else self.num_tokens

    @property
    def last_decode(self) -> int:
        """Last position that decoding can feed before a prefill or the end of the request."""
        # Beyond the tokens known so far, each entry is decoded.
        return self.run_end - 1 if self.run_end < self.num_tokens else self.max_entries - 1

    @property
    def output_ids(self) -> tuple[int, ...]:
        """Tokens generated so far."""
        return tuple(self.ids(self.prompt_length, self.num_tokens).tolist())

    @property
    def table(self) -> BlockTable:
        """Its block table; only while it runs."""
        assert self.block_table is not None
        return self.block_table

    def ids(self, start: int, stop: int) -> Int32[np.ndarray, " t"]:
        """Return the tokens at positions from `start` up to `stop`."""
        return (self.tags[start:stop] & (DECODED - 1)).astype(np.int32)

    def write_sampling(self, arrays: SamplingArrays) -> None:
        """Write its sampling parameters into its row of a dispatch's arrays."""
        sampling = self.sampling
        values = {
            "keys": self.key,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "stop_ids": sorted(self.stop_ids) + [NO_TOKEN] * (MAX_STOP_IDS - len(self.stop_ids)),
            "stop_from": min(self.prompt_length + sampling.min_new_tokens, self.max_context + 1),
        }
        for name, value in values.items():
            getattr(arrays, name)[self.row] = value

    def append(self, token: int, logprob: float) -> Finish | None:
        """Append a sampled token.

        Args:
            token: its id.
            logprob: its log-probability.

        Returns:
            Why the generation ends with this token; None if it goes on.

        Raises:
            BaseException: whatever `SamplingParams.stop_fn` raises.
        """
        self.tags = np.append(self.tags, token + DECODED)
        self.logprobs.append(logprob)
        if token in self.stop_ids:
            return "stop"
        if self.sampling.stop_fn is not None and self.sampling.stop_fn(self.output_ids):
            return "text"
        if self.num_tokens > self.max_context:
            return "context"
        return "length" if len(self.logprobs) >= self.sampling.max_new_tokens else None

    def complete(self, reason: Finish) -> None:
        """Deliver the result."""
        result = GenerationResult(
            ids=self.output_ids,
            logprobs=tuple(self.logprobs),
            finish=reason,
            prefilled=self.prefilled,
        )
        self.on_done(result)


def prompt_tags(
    ids: Sequence[int], known: Sequence[int] | Int64[np.ndarray, " n"] = ()
) -> Int64[np.ndarray, " t"]:
    """Return the provenance tags of a prompt.

    Args:
        ids: its tokens, at least one.
        known: tags of its first entries, if earlier requests have computed them.
    """
    tags = np.asarray(ids, np.int64)
    tags[: len(known)] = known
    tags[-1] |= DECODED  # the last token goes through decoding, which samples the next one
    return tags
