"""Linear layers with an optional low-rank adapter of our own.

Every parameter carries its logical axes (`axes`), the adapter's two halves their own ones, so that a
sharding rule never has to guess an adapter's layout from its base's. Knows nothing of attention.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from eef_jax.models.base import LoraConfig


class Linear(nnx.Module):
    """y = x w, or y = x w + alpha / rank * dropout(x) a b; w is stored [in, out], without a bias.

    Args:
        shape: (in, out).
        axes: logical axes of the two.
        name: the projection's name, as in `LoraConfig.targets`.
        lora: the adapter; None, or one that does not target `name`, adds none.
        param_dtype: type of w; the adapter is float32 always (its updates are too small for bfloat16).
        key: makes w (normal, 0.02) and a (uniform, 1 / sqrt(in)); b is 0.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        axes: tuple[str, str],
        *,
        name: str,
        lora: LoraConfig | None,
        param_dtype: DTypeLike,
        key: jax.Array,
    ) -> None:
        weight_key, adapter_key = jax.random.split(key)
        weight = 0.02 * jax.random.normal(weight_key, shape)
        self.weight = nnx.Param(weight.astype(param_dtype), axes=axes)
        self.adapted = lora is not None and name in lora.targets
        if lora is not None and self.adapted:
            self.scale = lora.alpha / lora.rank
            self.dropout = lora.dropout
            a, b = init_adapter(adapter_key, shape, lora.rank)
            self.lora_a = nnx.LoRAParam(a, axes=(axes[0], "rank"))
            self.lora_b = nnx.LoRAParam(b, axes=("rank", axes[1]))

    def __call__(self, x: jax.Array, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """Map [..., in] to [..., out]; without `dropout_key` nothing is ever dropped."""
        y = x @ self.weight[...].astype(x.dtype)
        if not self.adapted:
            return y
        if dropout_key is not None and self.dropout > 0.0:
            keep = jax.random.bernoulli(dropout_key, 1.0 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1.0 - self.dropout), 0).astype(x.dtype)
        low = x @ self.lora_a[...].astype(x.dtype)
        return y + (low * self.scale) @ self.lora_b[...].astype(x.dtype)

    def fold(self) -> None:
        """Add the adapter to the weight (in the weight's own type) and drop it."""
        if not self.adapted:
            return
        weight = self.weight[...]
        update = self.scale * (self.lora_a[...] @ self.lora_b[...])
        self.weight[...] = (weight.astype(jnp.float32) + update).astype(weight.dtype)
        del self.lora_a, self.lora_b
        self.adapted = False


def init_adapter(key: jax.Array, shape: tuple[int, int], rank: int) -> tuple[jax.Array, jax.Array]:
    """Make an adapter's two halves: a is uniform within 1 / sqrt(in), b is 0, so nothing changes."""
    bound = 1.0 / math.sqrt(shape[0])
    a = jax.random.uniform(key, (shape[0], rank), minval=-bound, maxval=bound)
    return a, jnp.zeros((rank, shape[1]))
