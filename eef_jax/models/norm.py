"""Root-mean-square norms (arXiv:1910.07467), computed in float32."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from eef_jax.models.config import ModelConfig


class RMSNorm(nnx.Module):
    """x / rms(x), cast to the type of x, times a weight."""

    def __init__(self, width: int, *, eps: float, param_dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones(width, param_dtype), axes=("norm",))
        self.eps = eps

    def __call__(self, x: Float[Array, "*x d"]) -> Float[Array, "*x d"]:
        weight = jax.lax.broadcast_to_rank(self.weight[...].astype(x.dtype), x.ndim)
        return _normed(x, self.eps).astype(x.dtype) * weight


class ZeroCenteredRMSNorm(nnx.Module):
    """x / rms(x) * (1 + excess), all in float32: Gemma stores weights minus 1."""

    def __init__(self, width: int, *, eps: float, param_dtype: DTypeLike) -> None:
        self.excess = nnx.Param(jnp.zeros(width, param_dtype), axes=("norm",))
        self.eps = eps

    def __call__(self, x: Float[Array, "*x d"]) -> Float[Array, "*x d"]:
        weight = jax.lax.broadcast_to_rank(1.0 + self.excess[...].astype(jnp.float32), x.ndim)
        return (_normed(x, self.eps) * weight).astype(x.dtype)


def make_norm(
    config: ModelConfig, width: int, *, param_dtype: DTypeLike
) -> RMSNorm | ZeroCenteredRMSNorm:
    """Make a norm over vectors of `width`, of the kind that the model's config names."""
    kind = ZeroCenteredRMSNorm if config.zero_centered_norms else RMSNorm
    return kind(width, eps=config.rms_eps, param_dtype=param_dtype)


def _normed(x: Float[Array, "*x d"], eps: float) -> Float32[Array, "*x d"]:
    # The mean of many squares loses its last bits in bfloat16, and squares overflow in float16.
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
