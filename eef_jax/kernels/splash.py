"""Splash attention: JAX's block-sparse flash attention for TPUs, in Pallas.

Blocks of the score matrix that causality or a window masks are never computed, and no scores are
written to memory.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, g = n / k, h head dim.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float, Int

from eef_jax.kernels import sharded
from eef_jax.kernels.spec import AttentionSpec

LANES = 128  # of a vector register; tokens and head dims are padded to a multiple
BLOCK = 1024  # largest tile of queries and keys


def attention(
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k t h"],
    v: Float[Array, "b k t h"],
    segment_ids: Int[Array, "b t"],
    spec: AttentionSpec,
    *,
    interpret: bool | None = None,
) -> Float[Array, "b n t h"]:
    """Causal attention within segments.

    Args:
        q: queries. Under a mesh, each device computes its part of the rows, heads and queries.
        k: keys; n is a multiple of k.
        v: values.
        segment_ids: equal ids are contiguous.
        spec: scale, window and softcap of the scores.
        interpret: run the kernel in Pallas's interpreter; None does so if the program is traced for
            CPUs.

    Returns:
        The attended values of each query head.

    Raises:
        ConfigError: the mesh does not divide rows, heads or tokens.
    """
    t, h = q.shape[2:]
    padded_t, padded_h = _round_up(t, LANES * sharded.axis_size("context")), _round_up(h, LANES)
    widths = [(0, 0), (0, 0), (0, padded_t - t), (0, padded_h - h)]
    q, k, v = (jnp.pad(x, widths) for x in (q * spec.scale, k, v))
    ids = jnp.pad(segment_ids, [(0, 0), (0, padded_t - t)])
    interpret = sharded.use_interpreter() if interpret is None else interpret
    local = functools.partial(_local, spec=spec, interpret=interpret)
    return sharded.shard_attention(local, q, k, v, ids)[:, :, :t, :h]


def _local(
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k s h"],
    v: Float[Array, "b k s h"],
    q_ids: Int[Array, "b t"],
    kv_ids: Int[Array, "b s"],
    part: Int[Array, "1"],
    *,
    spec: AttentionSpec,
    interpret: bool,
) -> Float[Array, "b n t h"]:
    """One device's part: its queries are number `part` of equal parts of the row."""
    b, n, t, h = q.shape
    kv_heads, s = k.shape[1:3]
    q = q.reshape(b, kv_heads, n // kv_heads, t, h)

    def attend_at(offset: int) -> Float[Array, "b k g t h"]:
        one = _kernel(n // kv_heads, t, s, offset, spec.window, spec.softcap, interpret)
        ids = kernel.SegmentIds(q=q_ids, kv=kv_ids)
        each_head = jax.vmap(one, in_axes=(0, 0, 0, None))
        heads = jax.vmap(each_head)(q, k, v, ids)
        assert isinstance(heads, jax.Array), "without residuals the kernel returns one array"
        return heads

    if s == t:
        out = attend_at(0)
    else:
        offsets = range(0, s, t)
        out = jax.lax.switch(part[0], [functools.partial(attend_at, offset) for offset in offsets])
    return out.reshape(b, n, t, h)


def _kernel(
    heads: int,
    t: int,
    s: int,
    offset: int,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> kernel.SplashAttentionKernel:
    """The kernel of one kv head's queries, which start at position `offset` of the keys."""
    if window is None:
        mask: masks.Mask = masks.CausalMask((t, s), offset=offset)
    else:
        mask = masks.LocalMask((t, s), window_size=(window - 1, 0), offset=offset)
    q_tile, kv_tile = tile_size(t), tile_size(s)
    sizes = kernel.BlockSizes(
        block_q=q_tile,
        block_kv=kv_tile,
        block_kv_compute=min(kv_tile, 512),
        block_q_dkv=q_tile,
        block_kv_dkv=kv_tile,
        block_kv_dkv_compute=min(kv_tile, 512),
        use_fused_bwd_kernel=True,
    )
    return kernel.make_splash_mqa_single_device(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )


def flops(name: str, operands: Sequence[Any]) -> float:
    """FLOPs of one call of the kernel in a compiled program.

    Two products in the forward pass and five in the backward pass, over the blocks that causality
    leaves; a window is not subtracted. Of queries that are split over devices the last part is
    counted, which has most.

    Args:
        name: of the call; contains the kernel's name.
        operands: objects with `dtype` and `dims`. The first two floating-point ones are queries
            [..., t, h] and keys [..., s, h], without axes of size 1.

    Returns:
        FLOPs; 0 for another kernel.
    """
    if "splash" not in name:
        return 0.0
    queries, keys, *_ = (x for x in operands if x.dtype in ("bf16", "f32", "f16"))
    t, s = queries.dims[-2], keys.dims[-2]
    computed = (s - t + (t + tile_size(t)) / 2) / s
    return 2.0 * math.prod(queries.dims) * s * computed * (2 if "fwd" in name else 5)


def tile_size(tokens: int) -> int:
    """Size of the largest tile that divides a number of tokens."""
    return next(size for size in (BLOCK, 512, 384, 256, LANES) if tokens % size == 0)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
