"""Attention over a paged KV cache for TPUs, in Pallas.

A row's pages are fetched directly from the cache while earlier ones are multiplied, and only those
that its tokens see; nothing is gathered and no score is written to memory (Dao et al. 2022,
arXiv:2205.14135; pages as in Kwon et al. 2023, arXiv:2309.06180).

Legend: b rows, c tokens of a row, p pages, s positions of a page, w pages of a row, n query heads,
k kv heads, g = n / k, r = g * c queries of a kv head, h head dim.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from eef_jax import sharding
from eef_jax.kernels import sharded
from eef_jax.kernels.paged import pages_per_block
from eef_jax.kernels.spec import AttentionSpec
from eef_jax.kernels.xla import MASK_BIAS, softcap, visible

NAME = "paged_flash"
TILE = 512  # queries whose scores are in registers and VMEM at a time


def prefill_in_place(
    q: Float[Array, "b n c h"],
    k: Float[Array, "p k s h"],
    v: Float[Array, "p k s h"],
    table: Int[Array, "b w"],
    positions: Int[Array, "b c"],
    spec: AttentionSpec,
) -> Float[Array, "b n c h"]:
    """Attention of several tokens per row over the row's pages, without gathering them.

    Args:
        q: queries. Under a mesh, each device computes its heads.
        k: pages of keys.
        v: pages of values.
        table: each row's pages in order; p where there is none. Rows may share pages.
        positions: of the tokens: consecutive, then negative for padding at the end of a row.
        spec: scale, window and softcap of the scores.

    Returns:
        The attended values of each query head.
    """
    (b, n, c, h), kv_heads = q.shape, k.shape[1]
    q = (q * spec.scale).reshape(b, kv_heads, n // kv_heads * c, h)
    table = jnp.minimum(table, k.shape[0] - 1)
    first, last = positions[:, 0], jnp.max(positions, axis=1)
    local = functools.partial(_local, tokens=c, spec=spec, interpret=sharded.use_interpreter())
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        heads = P(None, sharding.partition_spec(("kv_heads",), (kv_heads,), mesh)[0])
        in_specs = (heads, heads, heads, P(), P(), P())
        local = jax.shard_map(local, in_specs=in_specs, out_specs=heads, check_vma=False)
    return local(q, k, v, table, first, last).reshape(b, n, c, h)


def _local(
    q: Float[Array, "b k r h"],
    k: Float[Array, "p k s h"],
    v: Float[Array, "p k s h"],
    table: Int[Array, "b w"],
    first: Int[Array, " b"],
    last: Int[Array, " b"],
    *,
    tokens: int,
    spec: AttentionSpec,
    interpret: bool,
) -> Float[Array, "b k r h"]:
    """One device's part; a row's tokens are at positions `first` to `last`, -1 without tokens."""
    (b, kv_heads, r, h), s, width = q.shape, k.shape[2], table.shape[1]
    per_block = min(pages_per_block(s), width)
    # A single query per head is too little work to fetch pages for each head.
    heads_per_step = kv_heads if tokens == 1 else 1

    def page(
        slot: int, row: Any, heads: Any, step: Any, table: Any, first: Any, last: Any
    ) -> tuple[Any, ...]:
        # Outside the visible blocks the nearest one is requested again, which copies nothing.
        begin, end = _blocks(first[row], last[row], per_block * s, spec)
        column = jnp.clip(step, begin, end) * per_block + slot
        return table[row, jnp.minimum(column, jnp.maximum(last[row], 0) // s)], heads, 0, 0

    queries = pl.BlockSpec((None, heads_per_step, r, h), lambda row, heads, *_: (row, heads, 0, 0))
    one_page = (None, heads_per_step, s, h)
    pages = [pl.BlockSpec(one_page, functools.partial(page, slot)) for slot in range(per_block)]
    call = pl.pallas_call(
        functools.partial(_kernel, tokens=tokens, per_block=per_block, spec=spec),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(b, kv_heads // heads_per_step, pl.cdiv(width, per_block)),
            in_specs=[queries, *pages, *pages],
            out_specs=queries,
            scratch_shapes=[
                pltpu.VMEM((heads_per_step, r, 1), jnp.float32),
                pltpu.VMEM((heads_per_step, r, 1), jnp.float32),
                pltpu.VMEM((heads_per_step, r, h), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
        name=NAME,
    )
    return call(table, first, last, q, *[k] * per_block, *[v] * per_block)


def _kernel(
    table: Any,
    first: Any,
    last: Any,
    q: Any,
    *refs: Any,
    tokens: int,
    per_block: int,
    spec: AttentionSpec,
) -> None:
    """Add one block of a row's pages to its running softmax."""
    del table  # read by the block specs
    keys, values, (out, peak, total, mixed) = (
        refs[:per_block],
        refs[per_block : 2 * per_block],
        refs[2 * per_block :],
    )
    row, step = pl.program_id(0), pl.program_id(2)
    (heads, r, _), page = q.shape, keys[0].shape[1]
    begin, end = _blocks(first[row], last[row], per_block * page, spec)

    @pl.when(step == 0)
    def _begin() -> None:
        peak[...] = jnp.full_like(peak, MASK_BIAS)
        total[...] = jnp.zeros_like(total)
        mixed[...] = jnp.zeros_like(mixed)

    def tile(head: int, start: int) -> None:
        at = (head, slice(start, min(start + TILE, r)))
        rows = q[at]
        products = [_dot(rows, ref[head].astype(q.dtype), contract=1) for ref in keys]
        shape = (rows.shape[0], per_block * page)
        token = jax.lax.rem(jax.lax.broadcasted_iota(jnp.int32, shape, 0) + start, tokens)
        offset = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
        distance = first[row] + token - step * per_block * page - offset
        bias = jnp.where(visible(distance, spec), 0.0, MASK_BIAS)
        scores = softcap(jnp.concatenate(products, axis=1), spec) + bias
        new_peak = jnp.maximum(peak[at], jnp.max(scores, axis=1, keepdims=True))
        weights, rescale = jnp.exp(scores - new_peak), jnp.exp(peak[at] - new_peak)
        total[at] = total[at] * rescale + jnp.sum(weights, axis=1, keepdims=True)
        mix = mixed[at] * rescale
        for number, ref in enumerate(values):
            part = weights[:, number * page : (number + 1) * page].astype(q.dtype)
            mix += _dot(part, ref[head].astype(q.dtype), contract=0)
        mixed[at], peak[at] = mix, new_peak

    @pl.when((last[row] >= 0) & (step >= begin) & (step <= end))
    def _block() -> None:
        for head in range(heads):
            for start in range(0, r, TILE):
                tile(head, start)

    @pl.when(step == pl.num_programs(2) - 1)
    def _end() -> None:
        # A row without tokens added nothing: its output is zero.
        out[...] = (mixed[...] / jnp.maximum(total[...], 1e-30)).astype(out.dtype)


def _blocks(
    first: Int[Array, "..."], last: Int[Array, "..."], size: int, spec: AttentionSpec
) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """The first and the last block of `size` positions that tokens from first to last see."""
    reach = 0 if spec.window is None else first + 1 - spec.window
    return jnp.maximum(reach, 0) // size, jnp.maximum(last, 0) // size


def flops(name: str, operands: Sequence[Any]) -> float:
    """FLOPs of one call of the kernel in a compiled program, with all rows at full length.

    Args:
        name: of the call; contains the kernel's name.
        operands: objects with `dims`: table, first and last positions, queries, then pages of keys
            [p, k, s, h], once for each page of a block, and of values.

    Returns:
        0 for another kernel.
    """
    if NAME not in name:
        return 0.0
    table, _, _, queries, keys, *_ = operands
    return 4.0 * math.prod(queries.dims) * table.dims[-1] * keys.dims[-2]


def _dot(x: Float[Array, "..."], y: Float[Array, "..."], *, contract: int) -> Float[Array, "..."]:
    """Product over the last axis of x and axis `contract` of y."""
    axes = (((1,), (contract,)), ((), ()))
    return jax.lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)
