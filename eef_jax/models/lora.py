"""Linear layers with an optional low-rank adapter of our own.

Every parameter carries its logical axes (`axes`), the adapter's two halves their own ones, so
that a sharding rule never has to guess an adapter's layout from its base's.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from eef_jax.models.base import LoraConfig


class Linear(nnx.Module):
    """y = x w + bias, plus alpha / rank * dropout(x) a b with an adapter; w is stored [in, out].

    All parameters are 0 until they are filled (see `hf`).

    Args:
        shape: (in, out).
        axes: logical axes of the two.
        name: the projection's name, as in `LoraConfig.targets`.
        lora: the adapter; None, or one that does not target `name`, adds none.
        param_dtype: type of w; an adapter is float32 (its updates are too small for bfloat16).
        bias: whether there is one, float[out]; it is never adapted.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        axes: tuple[str, str],
        *,
        name: str,
        lora: LoraConfig | None,
        param_dtype: DTypeLike,
        bias: bool = False,
    ) -> None:
        self.weight = nnx.Param(jnp.zeros(shape, param_dtype), axes=axes)
        self.bias = nnx.Param(jnp.zeros(shape[1:], param_dtype), axes=axes[1:]) if bias else None
        self.adapted = lora is not None and name in lora.targets
        if lora is not None and self.adapted:
            self.scale = lora.alpha / lora.rank
            self.dropout = lora.dropout
            a, b = jnp.zeros((shape[0], lora.rank)), jnp.zeros((lora.rank, shape[1]))
            self.lora_a = nnx.LoRAParam(a, axes=(axes[0], "rank"))
            self.lora_b = nnx.LoRAParam(b, axes=("rank", axes[1]))

    def __call__(self, x: jax.Array, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """Map [..., in] to [..., out]; without `dropout_key` nothing is ever dropped."""
        y = self._product(x, dropout_key)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def _product(self, x: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        weight = self.weight[...].astype(x.dtype)
        if not self.adapted:
            return x @ weight
        key = dropout_key if self.dropout > 0.0 else None
        rows, (d_in, d_out) = x.size // x.shape[-1], weight.shape
        if key is None and x.dtype == jnp.float32 and rows * (d_in + d_out) > d_in * d_out:
            # With this many rows, adding a b to w once is less work than taking each row through
            # a and b. Not in bfloat16, whose sum would round small updates away.
            return x @ (weight + self.update())
        y = x @ weight
        if key is not None:
            keep = jax.random.bernoulli(key, 1.0 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1.0 - self.dropout), 0).astype(x.dtype)
        low = x @ self.lora_a[...].astype(x.dtype)
        return y + (low * self.scale) @ self.lora_b[...].astype(x.dtype)

    def update(self) -> jax.Array:
        """What the adapter adds to the weight, float32[in, out]."""
        return self.scale * (self.lora_a[...] @ self.lora_b[...])

    def fold(self) -> None:
        """Add the adapter to the weight (in the weight's own type) and drop it."""
        if not self.adapted:
            return
        weight = self.weight[...]
        self.weight[...] = (weight.astype(jnp.float32) + self.update()).astype(weight.dtype)
        del self.lora_a, self.lora_b
        self.adapted = False
