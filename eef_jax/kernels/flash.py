"""Attention of new tokens to a paged cache, for TPUs, in Pallas.

A row's pages come straight from where they lie, some at a time while those before are multiplied,
and no more of them than its tokens see; nothing is gathered and no score is written to memory
(Dao et al. 2022, arXiv:2205.14135; pages as in Kwon et al. 2023, arXiv:2309.06180). Knows page
tables; knows neither models nor who owns a page.

Legend: b rows, c tokens of a row, p pages, s entries of a page, w pages of a row, n query heads,
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

from eef_jax import sharding
from eef_jax.kernels import sharded
from eef_jax.kernels.paged import pages_per_block
from eef_jax.kernels.spec import AttentionSpec
from eef_jax.kernels.xla import MASK_BIAS, softcap, visible

NAME = "paged_flash"
TILE = 512  # queries whose scores are there at once


def prefill(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    table: jax.Array,
    positions: jax.Array,
    spec: AttentionSpec,
) -> jax.Array:
    """`paged.prefill` without gathering; arguments and result are the same, keys are [p, k, s, h].

    A row's positions go on by one, with padding at its end alone. Under a mesh each device takes
    its heads. On a CPU the kernel's steps run as plain operations, as tests want them.
    """
    (b, n, c, h), kv_heads = q.shape, k.shape[1]
    q = (q * spec.scale).reshape(b, kv_heads, n // kv_heads * c, h)
    table = jnp.minimum(table, k.shape[0] - 1)
    first, last = positions[:, 0], jnp.max(positions, axis=1)
    local = functools.partial(_local, tokens=c, spec=spec, interpret=sharded.use_interpreter())
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        heads = P(None, sharding.partition_spec(("kv_heads",), (kv_heads,), mesh)[0])
        given = (heads, heads, heads, P(), P(), P())
        local = jax.shard_map(local, in_specs=given, out_specs=heads, check_vma=False)
    return local(q, k, v, table, first, last).reshape(b, n, c, h)


def _local(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    table: jax.Array,
    first: jax.Array,
    last: jax.Array,
    *,
    tokens: int,
    spec: AttentionSpec,
    interpret: bool,
) -> jax.Array:
    """A device's part: q [b, k, r, h], k and v [p, k, s, h] -> [b, k, r, h].

    A row's tokens are at positions from `first` to `last`, i32[b], -1 where there are none.
    """
    (b, kv_heads, r, h), s, width = q.shape, k.shape[2], table.shape[1]
    per = min(pages_per_block(s), width)
    # One query a head is too little work to fetch pages by head for.
    together = kv_heads if tokens == 1 else 1

    def page(
        place: int, row: Any, heads: Any, step: Any, table: Any, first: Any, last: Any
    ) -> tuple[Any, ...]:
        # Outside of what the row sees its nearest block is asked for again, which moves nothing.
        begin, end = _blocks(first[row], last[row], per * s, spec)
        column = jnp.clip(step, begin, end) * per + place
        return table[row, jnp.minimum(column, jnp.maximum(last[row], 0) // s)], heads, 0, 0

    queries = pl.BlockSpec((None, together, r, h), lambda row, heads, *_: (row, heads, 0, 0))
    one_page = (None, together, s, h)
    pages = [pl.BlockSpec(one_page, functools.partial(page, place)) for place in range(per)]
    call = pl.pallas_call(
        functools.partial(_kernel, tokens=tokens, per=per, spec=spec),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(b, kv_heads // together, pl.cdiv(width, per)),
            in_specs=[queries, *pages, *pages],
            out_specs=queries,
            scratch_shapes=[
                pltpu.VMEM((together, r, 1), jnp.float32),
                pltpu.VMEM((together, r, 1), jnp.float32),
                pltpu.VMEM((together, r, h), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
        name=NAME,
    )
    return call(table, first, last, q, *[k] * per, *[v] * per)


def _kernel(
    table: Any,
    first: Any,
    last: Any,
    q: Any,
    *refs: Any,
    tokens: int,
    per: int,
    spec: AttentionSpec,
) -> None:
    """Take in one block of one row's pages; the softmax goes on from the blocks before."""
    del table  # where the pages are, the block specs have read
    keys, values, (out, peak, total, mixed) = refs[:per], refs[per : 2 * per], refs[2 * per :]
    row, step = pl.program_id(0), pl.program_id(2)
    (heads, r, _), page = q.shape, keys[0].shape[1]
    begin, end = _blocks(first[row], last[row], per * page, spec)

    @pl.when(step == 0)
    def _begin() -> None:
        peak[...] = jnp.full_like(peak, MASK_BIAS)
        total[...] = jnp.zeros_like(total)
        mixed[...] = jnp.zeros_like(mixed)

    def tile(head: int, start: int) -> None:
        at = (head, slice(start, min(start + TILE, r)))
        rows = q[at]
        products = [_dot(rows, ref[head].astype(q.dtype), across=1) for ref in keys]
        shape = (rows.shape[0], per * page)
        token = jax.lax.rem(jax.lax.broadcasted_iota(jnp.int32, shape, 0) + start, tokens)
        place = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
        apart = first[row] + token - step * per * page - place
        bias = jnp.where(visible(apart, spec), 0.0, MASK_BIAS)
        scored = softcap(jnp.concatenate(products, axis=1), spec) + bias
        highest = jnp.maximum(peak[at], jnp.max(scored, axis=1, keepdims=True))
        weights, shrink = jnp.exp(scored - highest), jnp.exp(peak[at] - highest)
        total[at] = total[at] * shrink + jnp.sum(weights, axis=1, keepdims=True)
        mix = mixed[at] * shrink
        for number, ref in enumerate(values):
            part = weights[:, number * page : (number + 1) * page].astype(q.dtype)
            mix += _dot(part, ref[head].astype(q.dtype), across=0)
        mixed[at], peak[at] = mix, highest

    @pl.when((last[row] >= 0) & (step >= begin) & (step <= end))
    def _block() -> None:
        for head in range(heads):
            for start in range(0, r, TILE):
                tile(head, start)

    @pl.when(step == pl.num_programs(2) - 1)
    def _end() -> None:
        # A row without a token took nothing in: zeros.
        out[...] = (mixed[...] / jnp.maximum(total[...], 1e-30)).astype(out.dtype)


def _blocks(
    first: jax.Array, last: jax.Array, size: int, spec: AttentionSpec
) -> tuple[jax.Array, jax.Array]:
    """The first and the last block of so many entries that tokens from first to last see."""
    reach = 0 if spec.window is None else first + 1 - spec.window
    return jnp.maximum(reach, 0) // size, jnp.maximum(last, 0) // size


def flops(name: str, operands: Sequence[Any]) -> float:
    """FLOPs of one call of the kernel in a compiled program, all rows as deep as they may be.

    Args:
        name: of the call; the kernel's name is in it.
        operands: with `dims`: table, first and last positions, queries, then pages of keys
            [p, k, s, h] as often as are taken at once, and of values.

    Returns:
        0 for another kernel.
    """
    if NAME not in name:
        return 0.0
    table, _, _, queries, keys, *_ = operands
    return 4.0 * math.prod(queries.dims) * table.dims[-1] * keys.dims[-2]


def _dot(x: jax.Array, y: jax.Array, *, across: int) -> jax.Array:
    """Product over the last axis of x and the given one of y."""
    axes = (((1,), (across,)), ((), ()))
    return jax.lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)
