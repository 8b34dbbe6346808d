"""Attention of one new token a row to a paged cache, for TPUs, in Pallas.

A row's pages come straight from where they lie, some at a time while those before are multiplied,
and no more of them than the row has filled; nothing is gathered and no score is written to memory
(Dao et al. 2022, arXiv:2205.14135; pages as in Kwon et al. 2023, arXiv:2309.06180). Knows page
tables; knows neither models nor who owns a page.

Legend: b rows, p pages, s entries of a page, w pages of a row, n query heads, k kv heads,
g = n / k, h head dim.
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
from eef_jax.kernels import parts
from eef_jax.kernels.paged import block
from eef_jax.kernels.scores import Scores
from eef_jax.kernels.xla import MASKED, capped, seen

NAME = "flash_decode"


def decode(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    table: jax.Array,
    positions: jax.Array,
    scores: Scores,
) -> jax.Array:
    """`paged.gathered` without gathering; arguments and result are the same.

    Under a mesh each device takes its heads. On a CPU the kernel's steps run as plain operations,
    as tests want them.
    """
    b, n, h = q.shape
    kv_heads = k.shape[1]
    q = (q * scores.scale).reshape(b, kv_heads, n // kv_heads, h)
    table = jnp.minimum(table, k.shape[0] - 1)
    local = functools.partial(_local, scores=scores, interpret=parts.interpreted())
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        heads = P(None, sharding.spec(("kv_heads",), (kv_heads,), mesh)[0])
        given = (heads, heads, heads, P(), P())
        local = jax.shard_map(local, in_specs=given, out_specs=heads, check_vma=False)
    return local(q, k, v, table, positions).reshape(b, n, h)


def _local(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    table: jax.Array,
    positions: jax.Array,
    *,
    scores: Scores,
    interpret: bool,
) -> jax.Array:
    """A device's part: q [b, k, g, h], k and v [p, k, s, h] -> [b, k, g, h]."""
    (b, kv_heads, g, h), s, width = q.shape, k.shape[2], table.shape[1]
    per = min(block(s), width)

    def page(place: int, row: Any, step: Any, table: Any, positions: Any) -> tuple[Any, ...]:
        # Outside of what the row sees its nearest block is asked for again, which moves nothing.
        first, last = _blocks(positions[row], per * s, scores)
        column = jnp.clip(step, first, last) * per + place
        return table[row, jnp.minimum(column, jnp.maximum(positions[row], 0) // s)], 0, 0, 0

    one_row = pl.BlockSpec((None, kv_heads, g, h), lambda row, step, *_: (row, 0, 0, 0))
    one_page = (None, kv_heads, s, h)
    block_of = [pl.BlockSpec(one_page, functools.partial(page, place)) for place in range(per)]
    call = pl.pallas_call(
        functools.partial(_kernel, per=per, page=s, scores=scores),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(b, pl.cdiv(width, per)),
            in_specs=[one_row, *block_of, *block_of],
            out_specs=one_row,
            scratch_shapes=[
                pltpu.VMEM((kv_heads, g, 1), jnp.float32),
                pltpu.VMEM((kv_heads, g, 1), jnp.float32),
                pltpu.VMEM((kv_heads, g, h), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name=NAME,
    )
    return call(table, positions, q, *[k] * per, *[v] * per)


def _kernel(
    table: Any, positions: Any, q: Any, *refs: Any, per: int, page: int, scores: Scores
) -> None:
    """Take in one block of one row's pages; the softmax goes on from the blocks before."""
    del table  # where the pages are, the block specs have read
    keys, values, (out, peak, total, mixed) = refs[:per], refs[per : 2 * per], refs[2 * per :]
    step, position = pl.program_id(1), positions[pl.program_id(0)]
    first, last = _blocks(position, per * page, scores)

    @pl.when(step == 0)
    def _begin() -> None:
        peak[...] = jnp.full_like(peak, MASKED)
        total[...] = jnp.zeros_like(total)
        mixed[...] = jnp.zeros_like(mixed)

    @pl.when((position >= 0) & (step >= first) & (step <= last))
    def _block() -> None:
        places = jax.lax.broadcasted_iota(jnp.int32, (1, per * page), 1)
        apart = position - step * per * page - places
        bias = jnp.where(seen(apart, scores), 0.0, MASKED)
        for head in range(q.shape[0]):
            products = [_dot(q[head], ref[head].astype(q.dtype), across=1) for ref in keys]
            scored = capped(jnp.concatenate(products, axis=1), scores) + bias
            before = peak[head]
            highest = jnp.maximum(before, jnp.max(scored, axis=1, keepdims=True))
            weights, shrink = jnp.exp(scored - highest), jnp.exp(before - highest)
            total[head] = total[head] * shrink + jnp.sum(weights, axis=1, keepdims=True)
            mix = mixed[head] * shrink
            for place, ref in enumerate(values):
                part = weights[:, place * page : (place + 1) * page].astype(q.dtype)
                mix += _dot(part, ref[head].astype(q.dtype), across=0)
            mixed[head], peak[head] = mix, highest

    @pl.when(step == pl.num_programs(1) - 1)
    def _end() -> None:
        # A row without a token took nothing in: zeros.
        out[...] = (mixed[...] / jnp.maximum(total[...], 1e-30)).astype(out.dtype)


def _blocks(position: jax.Array, size: int, scores: Scores) -> tuple[jax.Array, jax.Array]:
    """The first and the last block of so many entries that a token at a position sees."""
    reach = 0 if scores.window is None else position + 1 - scores.window
    return jnp.maximum(reach, 0) // size, jnp.maximum(position, 0) // size


def flops(name: str, operands: Sequence[Any]) -> float:
    """FLOPs of one call of the kernel in a compiled program, all rows as deep as they may be.

    Args:
        name: of the call; the kernel's name is in it.
        operands: with `dims`: table, positions, queries, then pages of keys [p, k, s, h] as often
            as are taken at once, and of values.

    Returns:
        0 for another kernel.
    """
    if NAME not in name:
        return 0.0
    table, _, queries, keys, *_ = operands
    return 4.0 * math.prod(queries.dims) * table.dims[-1] * keys.dims[-2]


def _dot(x: jax.Array, y: jax.Array, *, across: int) -> jax.Array:
    """Product over the last axis of x and the given one of y."""
    axes = (((1,), (across,)), ((), ()))
    return jax.lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)
