"""Chunked prefill: which tokens of which requests the next prefill dispatch computes."""

import dataclasses
from collections.abc import Sequence

from eef_jax.config.sections import EngineConfig
from eef_jax.engine.config import prefill_bucket
from eef_jax.engine.request import GenerationRequest

SKIP_WEIGHT = 0.01  # priority of each skipped dispatch, as a share of a full prefill


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrefillChunk:
    """Tokens of one request that one row of a prefill dispatch computes.

    Attributes:
        request: the running request.
        start: its first position.
        stop: the position after its last.
    """

    request: GenerationRequest
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def choose_chunks(
    requests: Sequence[GenerationRequest], config: EngineConfig
) -> tuple[list[PrefillChunk], int]:
    """Choose the chunks of one prefill dispatch.

    A dispatch attends to as many pages of each row as its deepest row needs, so chunks of one depth
    share a dispatch: the bucket with most tokens (or whose requests were skipped longest) is
    served, and shallower chunks use the remaining rows.

    Args:
        requests: running requests with entries to prefill, oldest first; their `skips` are updated.
        config: sizes, all resolved.

    Returns:
        The chunks, at least one, and the bucket: pages of a block table.
    """
    by_bucket: dict[int, list[PrefillChunk]] = {}
    skips: dict[int, int] = {}
    # All chunks of a request up to its bucket's end may share a dispatch: pages are written before
    # they are read.
    for request in requests:
        bucket, chunks = _next_chunks(request, config)
        by_bucket.setdefault(bucket, []).extend(chunks)
        skips[bucket] = max(skips.get(bucket, 0), request.skips)
        request.skips += 1

    def priority(bucket: int) -> float:
        tokens = min(sum(map(len, by_bucket[bucket])), config.prefill_tokens)
        return tokens + SKIP_WEIGHT * config.prefill_tokens * skips[bucket]

    deepest = max(by_bucket, key=priority)
    buckets = sorted((bucket for bucket in by_bucket if bucket <= deepest), reverse=True)
    candidates = [chunk for bucket in buckets for chunk in by_bucket[bucket]]
    return _fitting(candidates, config), deepest


def _next_chunks(
    request: GenerationRequest, config: EngineConfig
) -> tuple[int, list[PrefillChunk]]:
    """The bucket of a request's next chunk, and all chunks up to the end of that bucket."""
    bucket = prefill_bucket(config, min(request.cursor + config.prefill_chunk, request.run_end))
    end = min(request.run_end, bucket * config.page_size)
    chunks = [
        PrefillChunk(request=request, start=start, stop=min(end, start + config.prefill_chunk))
        for start in range(request.cursor, end, config.prefill_chunk)
    ]
    return bucket, chunks


def _fitting(candidates: Sequence[PrefillChunk], config: EngineConfig) -> list[PrefillChunk]:
    """The first candidates that fit a dispatch, the last one cut to the remaining tokens."""
    chosen: list[PrefillChunk] = []
    left = config.prefill_tokens
    for chunk in candidates:
        if not left or len(chosen) == config.prefill_seqs:
            break
        chunk = dataclasses.replace(chunk, stop=min(chunk.stop, chunk.start + left))
        chosen.append(chunk)
        left, chunk.request.skips = left - len(chunk), 0
    return chosen
