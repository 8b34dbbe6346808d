"""Splash attention: JAX's block-sparse flash attention for TPUs, in Pallas.

Blocks of the score matrix that causality or a window hides are never computed, and no scores are
ever written to memory. Knows nothing of models.

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

from eef_jax.kernels import sharded
from eef_jax.kernels.spec import AttentionSpec

LANES = 128  # tokens and head widths come in multiples of a vector register's lanes
BLOCK = 1024  # largest tile of queries and keys


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    spec: AttentionSpec,
    *,
    interpret: bool | None = None,
) -> jax.Array:
    """Causal attention within segments.

    Args:
        q: [b, n, t, h]; under a mesh each device computes its rows, heads and queries.
        k: [b, k, t, h].
        v: [b, k, t, h].
        segment_ids: i32[b, t].
        spec: see `AttentionSpec`.
        interpret: run the kernel's steps as plain operations, as tests on a CPU do; None: where the
            default device is a CPU and no mesh of other devices is set.

    Raises:
        ConfigError: the mesh divides rows, heads or tokens badly.
    """
    t, h = q.shape[2:]
    padded_t, padded_h = _up(t, LANES * sharded.axis_size("context")), _up(h, LANES)
    wide = [(0, 0), (0, 0), (0, padded_t - t), (0, padded_h - h)]
    q, k, v = (jnp.pad(x, wide) for x in (q * spec.scale, k, v))
    ids = jnp.pad(segment_ids, [(0, 0), (0, padded_t - t)])
    plain = sharded.use_interpreter() if interpret is None else interpret
    local = functools.partial(_local, spec=spec, interpret=plain)
    return sharded.shard_attention(local, q, k, v, ids)[:, :, :t, :h]


def _local(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    q_ids: jax.Array,
    kv_ids: jax.Array,
    part: jax.Array,
    *,
    spec: AttentionSpec,
    interpret: bool,
) -> jax.Array:
    """A device's part: its queries stand at `part` of as many equal parts as there are."""
    b, n, t, h = q.shape
    kv_heads, s = k.shape[1:3]
    q = q.reshape(b, kv_heads, n // kv_heads, t, h)

    def at(offset: int) -> jax.Array:
        one = _kernel(n // kv_heads, t, s, offset, spec.window, spec.softcap, interpret)
        ids = kernel.SegmentIds(q=q_ids, kv=kv_ids)
        each_head = jax.vmap(one, in_axes=(0, 0, 0, None))
        heads = jax.vmap(each_head)(q, k, v, ids)
        assert isinstance(heads, jax.Array), "without residuals the kernel gives one array"
        return heads

    if s == t:
        out = at(0)
    else:
        offsets = range(0, s, t)
        out = jax.lax.switch(part[0], [functools.partial(at, offset) for offset in offsets])
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
    """The kernel of one kv head's queries, which stand at `offset` of the keys."""
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

    Two products forth and five back, over blocks that causality leaves; a window's are counted
    like those without. Of queries split over devices the last part is meant, which has most.

    Args:
        name: of the call; the kernel's name is in it.
        operands: with `dtype` and `dims`: the first floats are queries [..., t, h], then keys
            [..., s, h]; axes of one row or one kv head are not there.

    Returns:
        0 for another kernel.
    """
    if "splash" not in name:
        return 0.0
    queries, keys, *_ = (x for x in operands if x.dtype in ("bf16", "f32", "f16"))
    t, s = queries.dims[-2], keys.dims[-2]
    seen = (s - t + (t + tile_size(t)) / 2) / s
    return 2.0 * math.prod(queries.dims) * s * seen * (2 if "fwd" in name else 5)


def tile_size(tokens: int) -> int:
    """The largest tile that divides a number of tokens."""
    return next(size for size in (BLOCK, 512, 384, 256, LANES) if tokens % size == 0)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
