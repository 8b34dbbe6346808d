"""cuDNN's fused attention on NVIDIA GPUs, through `jax.nn.dot_product_attention`.

Segments and windows are given as a mask, [b, 1, t, t] in the arrays' own type: at 8,192 tokens
128 MiB a row. Knows nothing of models.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, h head dim.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from eef_jax.errors import ConfigError
from eef_jax.kernels import sharded
from eef_jax.kernels.spec import AttentionSpec


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    spec: AttentionSpec,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Causal attention within segments.

    Args:
        q: [b, n, t, h] in bfloat16 or float16; under a mesh each device computes its part.
        k: [b, k, t, h].
        v: [b, k, t, h].
        segment_ids: i32[b, t].
        spec: see `AttentionSpec`; without a softcap.
        implementation: that of `jax.nn.dot_product_attention`; tests on a CPU take `xla`.

    Raises:
        ConfigError: for a softcap, a 32-bit type, or a mesh that divides badly.
    """
    if spec.softcap is not None:
        raise ConfigError(
            f"cuDNN's attention bounds no scores (softcap = {spec.softcap}): set "
            "config.model.attention='xla' for this model"
        )
    if implementation == "cudnn" and q.dtype.itemsize != 2:
        raise ConfigError(
            f"cuDNN's attention computes in bfloat16 or float16, not {q.dtype}: set "
            "config.model.dtype='bfloat16' or config.model.attention='xla'"
        )
    local = functools.partial(_local, spec=spec, implementation=implementation)
    return sharded.shard_attention(local, q, k, v, segment_ids)


def _local(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    q_ids: jax.Array,
    kv_ids: jax.Array,
    part: jax.Array,
    *,
    spec: AttentionSpec,
    implementation: Literal["cudnn", "xla"],
) -> jax.Array:
    t, s = q.shape[2], k.shape[2]
    apart = (part[0] * t + jnp.arange(t))[:, None] - jnp.arange(s)[None, :]
    seen = (q_ids[:, :, None] == kv_ids[:, None, :]) & (apart >= 0)
    if spec.window is not None:
        seen &= apart < spec.window
    out = jax.nn.dot_product_attention(
        q.swapaxes(1, 2),
        k.swapaxes(1, 2),
        v.swapaxes(1, 2),
        mask=seen[:, None],
        scale=spec.scale,
        implementation=implementation,
    )
    return out.swapaxes(1, 2)
