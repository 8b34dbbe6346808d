"""cuDNN's fused attention on NVIDIA GPUs, through `jax.nn.dot_product_attention`.

Segments and windows are passed as a mask, [b, 1, t, t] in the arrays' dtype: 128 MiB a row at
8,192 tokens.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, h head dim.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eef_jax.errors import ConfigError
from eef_jax.kernels import sharded
from eef_jax.kernels.spec import AttentionSpec


def attention(
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k t h"],
    v: Float[Array, "b k t h"],
    segment_ids: Int[Array, "b t"],
    spec: AttentionSpec,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "b n t h"]:
    """Causal attention within segments.

    Args:
        q: queries in bfloat16 or float16. Under a mesh, each device computes its part.
        k: keys; n is a multiple of k.
        v: values.
        segment_ids: equal ids are contiguous.
        spec: scale and window of the scores; no softcap.
        implementation: passed to `jax.nn.dot_product_attention`; tests on a CPU use `xla`.

    Returns:
        The attended values of each query head.

    Raises:
        ConfigError: for a softcap, a 32-bit dtype, or a mesh that does not divide rows, heads or
            tokens.
    """
    if spec.softcap is not None:
        raise ConfigError(
            f"cuDNN's attention has no softcap (got softcap = {spec.softcap}): set "
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
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k s h"],
    v: Float[Array, "b k s h"],
    q_ids: Int[Array, "b t"],
    kv_ids: Int[Array, "b s"],
    part: Int[Array, "1"],
    *,
    spec: AttentionSpec,
    implementation: Literal["cudnn", "xla"],
) -> Float[Array, "b n t h"]:
    t, s = q.shape[2], k.shape[2]
    distance = (part[0] * t + jnp.arange(t))[:, None] - jnp.arange(s)[None, :]
    mask = (q_ids[:, :, None] == kv_ids[:, None, :]) & (distance >= 0)[None]
    if spec.window is not None:
        mask &= (distance < spec.window)[None]
    out = jax.nn.dot_product_attention(
        q.swapaxes(1, 2),
        k.swapaxes(1, 2),
        v.swapaxes(1, 2),
        mask=mask[:, None],
        scale=spec.scale,
        implementation=implementation,
    )
    return out.swapaxes(1, 2)
