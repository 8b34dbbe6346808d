"""Inputs of prefill and decode dispatches: fixed-shape arrays, filled on the host.

Padding marks what is unused: position -1, page `num_pages`, token index `prefill_tokens`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int32

from eef_jax.config.sections import EngineConfig
from eef_jax.engine.chunks import PrefillChunk
from eef_jax.engine.request import GenerationRequest
from eef_jax.engine.sampling import NO_TOKEN, SamplingArrays
from eef_jax.models.cache import AnyArray, PrefillView


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodeInputs:
    """Inputs of a decode dispatch of n steps over b rows with w pages each.

    Attributes:
        tokens: the token that each row feeds first.
        positions: its position; -1 for unused rows.
        last: the last position that a row feeds.
        forced: ids fed next in place of sampled ones; `NO_TOKEN` where one is sampled.
        block_tables: pages of the rows.
        sampling: parameters of the rows.
    """

    tokens: Int32[AnyArray, " b"]
    positions: Int32[AnyArray, " b"]
    last: Int32[AnyArray, " b"]
    forced: Int32[AnyArray, "n b"]
    block_tables: Int32[AnyArray, "b w"]
    sampling: SamplingArrays

    @classmethod
    def empty(cls, config: EngineConfig) -> "DecodeInputs":
        """Return numpy arrays to be filled, with all rows unused."""
        rows = config.max_num_seqs
        return cls(
            tokens=np.zeros(rows, np.int32),
            positions=np.full(rows, -1, np.int32),
            last=np.full(rows, -1, np.int32),
            forced=np.full((config.decode_steps, rows), NO_TOKEN, np.int32),
            block_tables=np.full((rows, config.pages_per_seq), config.num_pages, np.int32),
            sampling=SamplingArrays.empty(rows),
        )

    @classmethod
    def of(cls, requests: Sequence[GenerationRequest], config: EngineConfig) -> "DecodeInputs":
        """Return the inputs for running requests, each in its own row."""
        inputs = cls.empty(config)
        for request in requests:
            row, first, pages = request.row, request.cursor, request.table.pages
            (inputs.tokens[row],) = request.ids(first, first + 1)
            inputs.positions[row] = first
            # Positions that its pages hold: a decode cannot allocate pages.
            inputs.last[row] = min(request.last_decode, len(pages) * config.page_size - 1)
            known = min(first + 1 + config.decode_steps, request.num_tokens)
            forced = request.ids(first + 1, known)
            inputs.forced[: len(forced), row] = forced
            inputs.block_tables[row, : len(pages)] = pages
            request.write_sampling(inputs.sampling)
        return inputs


def empty_prefill(config: EngineConfig, width: int) -> tuple[PrefillView, Int32[np.ndarray, " t"]]:
    """Return numpy arrays of a prefill dispatch to be filled, all padding.

    Args:
        config: sizes, all resolved.
        width: pages of a block table, one of `config.prefill_buckets(...)`.

    Returns:
        Where the tokens go, and the tokens.
    """
    tokens, seqs = config.prefill_tokens, config.prefill_seqs
    chunks = PrefillView(
        positions=np.full(tokens, -1, np.int32),
        row=np.zeros(tokens, np.int32),
        column=np.zeros(tokens, np.int32),
        token=np.full((seqs, config.prefill_chunk), tokens, np.int32),
        table=np.full((seqs, width), config.num_pages, np.int32),
        attention=config.attention,
    )
    return chunks, np.zeros(tokens, np.int32)


def prefill_inputs(
    chunks: Sequence[PrefillChunk], config: EngineConfig, width: int
) -> tuple[PrefillView, Int32[np.ndarray, " t"]]:
    """Return the inputs of a prefill dispatch: the chunks one after another without padding.

    Args:
        chunks: at most `config.prefill_seqs`, with `config.prefill_tokens` tokens in total.
        config: sizes, all resolved.
        width: pages of a block table, one of `config.prefill_buckets(...)`.

    Returns:
        Where the tokens go, and the tokens.
    """
    view, tokens = empty_prefill(config, width)
    begin = 0
    for row, chunk in enumerate(chunks):
        here = slice(begin, begin + len(chunk))
        tokens[here] = chunk.request.ids(chunk.start, chunk.stop)
        view.positions[here] = np.arange(chunk.start, chunk.stop)
        view.row[here] = row
        view.column[here] = np.arange(len(chunk))
        view.token[row, : len(chunk)] = np.arange(here.start, here.stop)
        pages = chunk.request.table.pages[:width]
        view.table[row, : len(pages)] = pages
        begin = here.stop
    return view, tokens
