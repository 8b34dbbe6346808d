"""One answer in the making: its conversation, how each entry was computed, and how far it is.

A conversation's entries are a function of its marks alone. An answer that lost its pages is made
again from them: what was prefilled is prefilled, what was decoded is decoded with the tokens that
it drew then. Knows ids and marks; knows no pages, dispatches or threads.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from eef_jax.engine.pages import DECODED, BlockTable
from eef_jax.engine.sampling import MAX_STOP_IDS, NO_TOKEN, SamplingArrays, SamplingParams

Finish = Literal["stop", "text", "length", "context"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """An answer.

    Attributes:
        ids: what was drawn, the stop id included where it was drawn.
        logprobs: log-probability of each id under the distribution it was drawn from.
        finish: `stop` (drew a stop id), `text` (`SamplingParams.stop` said so), `length` (cap on
            new tokens), `context` (the context is full).
        prefilled: tokens of the conversation that had to be computed for it.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    prefilled: int


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class GenerationRequest:
    """One prompt on its way to an answer.

    Attributes:
        adapter: version of the adapter it is drawn with.
        marks: i64[n] of all tokens known so far (see `pages`).
        prompt: number of them that were given.
        key: two 32-bit words; with model, adapter and marks they decide the answer.
        sampling: how to draw.
        stops: all ids that end it.
        limit: tokens a conversation can hold.
        done: called with the answer, or with what it failed with.
        logprobs: of the drawn tokens.
        chain: its pages, while it is worked on.
        slot: its row of decode dispatches, likewise.
        cursor: next position to compute.
        order: when it was admitted, likewise.
        passed: prefills in a row that left it out.
        prefilled: see `GenerationResult`.
    """

    adapter: int
    marks: np.ndarray
    prompt: int
    key: tuple[int, int]
    sampling: SamplingParams
    stops: frozenset[int]
    limit: int
    done: Callable[[GenerationResult | BaseException], None]
    logprobs: list[float] = dataclasses.field(default_factory=list)
    chain: BlockTable | None = None
    slot: int = -1
    cursor: int = 0
    order: int = 0
    passed: int = 0
    prefilled: int = 0

    @property
    def known(self) -> int:
        """Tokens known so far."""
        return len(self.marks)

    @property
    def filling(self) -> bool:
        """Whether the next entry is to be prefilled, rather than decoded."""
        return bool(self.marks[self.cursor] < DECODED)

    @property
    def run(self) -> int:
        """End of the run of entries from the cursor on that are computed in the same way."""
        rest = self.marks[self.cursor :] < DECODED
        other = np.flatnonzero(rest != rest[0])
        return self.cursor + int(other[0]) if len(other) else self.known

    @property
    def last(self) -> int:
        """The last position that decoding may feed before something else has to happen."""
        return self.run - 1 if self.run < self.known else self.end - 1

    @property
    def end(self) -> int:
        """Entries that the longest answer would need."""
        return min(self.prompt + self.sampling.max_new_tokens - 1, self.limit)

    def id(self, position: int) -> int:
        """The token at a position."""
        return int(self.marks[position] & (DECODED - 1))

    def ids(self, start: int, stop: int) -> np.ndarray:
        """The tokens of some positions, i32."""
        return (self.marks[start:stop] & (DECODED - 1)).astype(np.int32)

    def fill(self, draws: SamplingArrays) -> None:
        """Write how this job draws into its row of a dispatch's arrays."""
        slot, sampling = self.slot, self.sampling
        row = {
            "keys": self.key,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "stops": sorted(self.stops) + [NO_TOKEN] * (MAX_STOP_IDS - len(self.stops)),
            "open_from": min(self.prompt + sampling.min_new_tokens, self.limit + 1),
        }
        for name, value in row.items():
            getattr(draws, name)[slot] = value

    def draw(self, token: int, logprob: float) -> Finish | None:
        """Note a token that was drawn after all known ones; why it is the last one, or None.

        Raises:
            BaseException: whatever `SamplingParams.stop` raises.
        """
        self.marks = np.append(self.marks, token + DECODED)
        self.logprobs.append(logprob)
        if token in self.stops:
            return "stop"
        if self.sampling.stop is not None and self.sampling.stop(self.drawn):
            return "text"
        if self.known > self.limit:
            return "context"
        return "length" if len(self.logprobs) >= self.sampling.max_new_tokens else None

    @property
    def drawn(self) -> tuple[int, ...]:
        """The tokens drawn so far."""
        return tuple(self.ids(self.prompt, self.known).tolist())

    def answer(self, finish: Finish) -> GenerationResult:
        """What has come out."""
        return GenerationResult(
            ids=self.drawn,
            logprobs=tuple(self.logprobs),
            finish=finish,
            prefilled=self.prefilled,
        )
