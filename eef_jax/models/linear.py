"""Linear layers, and the low-rank adapters of our own that may be added to them.

Every parameter carries its logical axes (`axes`), the adapter's two halves their own ones, so
that a sharding rule never has to guess an adapter's layout from its base's. The weight is an array,
or one that was quantized (see `quantize`). Knows no files.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from eef_jax.models.config import LoraConfig
from eef_jax.models.quantize import QuantizedWeight
from eef_jax.sharding import all_gather_fsdp

# From here on a weight's own gradient costs more than the thin products that avoid it.
_WIDE = 8


class Linear(nnx.Module):
    """y = x w + bias, plus scale * dropout(x) a b with an adapter; w is stored [in, out].

    All parameters are 0 until they are filled (see `hf`).

    Args:
        shape: (in, out).
        axes: logical axes of the two.
        param_dtype: type of w; an adapter is float32 (its updates are too small for bfloat16).
        bias: whether there is one, float[out]; it is never adapted.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        axes: tuple[str, str],
        *,
        param_dtype: DTypeLike,
        bias: bool = False,
    ) -> None:
        self.weight: nnx.Param | QuantizedWeight = nnx.Param(
            jnp.zeros(shape, param_dtype), axes=axes
        )
        self.bias = nnx.Param(jnp.zeros(shape[1:], param_dtype), axes=axes[1:]) if bias else None
        self.shape, self.axes = shape, axes
        self.adapted = False

    def adapt(self, lora: LoraConfig) -> None:
        """Add an adapter: a of 0 and b of 0, until they are filled."""
        (d_in, d_out), axes = self.shape, self.axes
        self.adapted, self.scale, self.dropout = True, lora.scale, lora.dropout
        self.lora_a = nnx.LoRAParam(jnp.zeros((d_in, lora.rank)), axes=(axes[0], "rank"))
        self.lora_b = nnx.LoRAParam(jnp.zeros((lora.rank, d_out)), axes=("rank", axes[1]))

    def __call__(self, x: jax.Array, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """Map [..., in] to [..., out]; without `dropout_key` nothing is ever dropped."""
        y = self._product(x, dropout_key)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def _product(self, x: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        if isinstance(self.weight, QuantizedWeight):
            y = self.weight.product(x)
            return y + self._low_rank(x, dropout_key) if self.adapted else y
        weight = all_gather_fsdp(self.weight[...].astype(x.dtype), self.axes)
        if not self.adapted:
            return x @ weight
        dropping = dropout_key is not None and self.dropout > 0.0
        rows, (d_in, d_out) = x.size // x.shape[-1], weight.shape
        if not dropping and x.dtype == jnp.float32 and rows * (d_in + d_out) > d_in * d_out:
            # With this many rows, adding a b to w once is less work than taking each row through
            # a and b. Not in bfloat16, whose sum would round small updates away.
            if d_in * d_out > _WIDE * self.lora_a.shape[1] * (d_in + d_out):
                a, b = self.lora_a[...], self.lora_b[...]
                return _merged_product(self.scale, x, weight, a, b)
            return x @ (weight + self.delta_weight())
        return x @ weight + self._low_rank(x, dropout_key)

    def _low_rank(self, x: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        if dropout_key is not None and self.dropout > 0.0:
            keep = jax.random.bernoulli(dropout_key, 1.0 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1.0 - self.dropout), 0).astype(x.dtype)
        a = all_gather_fsdp(self.lora_a[...].astype(x.dtype), (self.axes[0], "rank"))
        b = all_gather_fsdp(self.lora_b[...].astype(x.dtype), ("rank", self.axes[1]))
        return ((x @ a) * self.scale) @ b

    def delta_weight(self) -> jax.Array:
        """What the adapter adds to the weight, float32[in, out]."""
        return self.scale * (self.lora_a[...] @ self.lora_b[...])

    def merged_weight(self) -> jax.Array:
        """The weight with the adapter added, in the weight's own type (quantized: float32)."""
        stored = self.weight
        weight = stored.dequantize() if isinstance(stored, QuantizedWeight) else stored[...]
        if not self.adapted:
            return weight
        return (weight.astype(jnp.float32) + self.delta_weight()).astype(weight.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _merged_product(
    scale: float, x: jax.Array, weight: jax.Array, a: jax.Array, b: jax.Array
) -> jax.Array:
    """The product x (w + scale a b), whose gradients go through a and b alone; w gets none.

    Taken as it stands, the sum's gradient is of the weight's size, a third of all the work of a
    step: forth and back for 2,304 rows of [576, 1536], 230 ms of CPU time instead of 125.
    """
    return x @ (weight + scale * (a @ b))


def _merged_forward(
    scale: float, x: jax.Array, weight: jax.Array, a: jax.Array, b: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _merged_product(scale, x, weight, a, b), (x, weight, a, b)


def _merged_backward(
    scale: float, kept: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, None, jax.Array, jax.Array]:
    x, weight, a, b = kept
    rows = tuple(range(x.ndim - 1))
    low = scale * (dy @ b.T)
    da = jnp.tensordot(low, x, (rows, rows)).T
    db = jnp.tensordot(scale * (x @ a), dy, (rows, rows))
    return dy @ weight.T + low @ a.T, None, da, db


_merged_product.defvjp(_merged_forward, _merged_backward)
