"""Weights in 8 or 4 bits, for a base that an adapter is tuned on (QLoRA, arXiv:2305.14314).

Only projections are quantized: embedding, output head, norms and biases are small or sensitive. A
weight is encoded on the host, one tensor at a time, and dequantized on the device in each product.
"""

import abc
import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, Integer, Shaped, UInt

from eef_jax.errors import ConfigError, did_you_mean

NF4_BLOCK = 64  # consecutive weights of one output that share a scale
# (codes, scales) -> weight
Restore = Callable[[Integer[Array, "_ d_out"], Float32[Array, "..."]], Float32[Array, "d_in d_out"]]
# Saved for the backward pass of a product: codes and scales.
_Residuals = tuple[Integer[Array, "_ d_out"], Float32[Array, "..."]]
_COLUMNS = 256  # columns encoded at a time, which bounds the temporary memory of encoding


class QuantizedWeight(nnx.Module, abc.ABC):
    """A weight [in, out] as integer codes and float32 scales.

    Attributes:
        shape: shape of the weight.
        codes: integer codes.
        scale: float32 scales.
    """

    shape: tuple[int, int]
    codes: nnx.Param
    scale: nnx.Param

    @abc.abstractmethod
    def encode(
        self, weight: Float[np.ndarray, "d_in d_out"]
    ) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Encode a weight: codes and scales by attribute name."""

    @staticmethod
    @abc.abstractmethod
    def restore(
        codes: Integer[Array, "_ d_out"], scale: Float32[Array, "..."]
    ) -> Float32[Array, "d_in d_out"]:
        """Decode codes and scales to a weight."""

    def dequantize(self) -> Float32[Array, "d_in d_out"]:
        """The weight."""
        return self.restore(self.codes[...], self.scale[...])

    def product(self, x: Float[Array, "*n d_in"]) -> Float[Array, "*n d_out"]:
        """Multiply x by the weight, in the type of x."""
        return _product(self.restore, x, self.codes[...], self.scale[...])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(
    restore: Restore,
    x: Float[Array, "*n d_in"],
    codes: Integer[Array, "_ d_out"],
    scale: Float32[Array, "..."],
) -> Float[Array, "*n d_out"]:
    # The barriers make dequantization wait for x here and for the gradient in the backward pass.
    # Without them XLA dequantizes the weights of all layers first, in the memory that quantizing
    # saved. (On CPU it still does: it drops barriers there.)
    x, codes, scale = jax.lax.optimization_barrier((x, codes, scale))
    return x @ restore(codes, scale).astype(x.dtype)


def _fwd(
    restore: Restore,
    x: Float[Array, "*n d_in"],
    codes: Integer[Array, "_ d_out"],
    scale: Float32[Array, "..."],
) -> tuple[Float[Array, "*n d_out"], _Residuals]:
    return _product(restore, x, codes, scale), (codes, scale)


def _bwd(
    restore: Restore, residuals: _Residuals, grad: Float[Array, "*n d_out"]
) -> tuple[Float[Array, "*n d_in"], Shaped[np.ndarray, "_ d_out"], Float32[Array, "..."]]:
    grad, codes, scale = jax.lax.optimization_barrier((grad, *residuals))
    dx = grad @ restore(codes, scale).astype(grad.dtype).T
    return dx, np.zeros(codes.shape, jax.dtypes.float0), jnp.zeros_like(scale)


_product.defvjp(_fwd, _bwd)


class Int8(QuantizedWeight):
    """One byte per weight, symmetric, one scale per output: w = code * scale."""

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str]) -> None:
        self.shape = shape
        self.codes = nnx.Param(jnp.zeros(shape, jnp.int8), axes=axes)
        self.scale = nnx.Param(jnp.zeros(shape[1:], jnp.float32), axes=axes[1:])

    def encode(
        self, weight: Float[np.ndarray, "d_in d_out"]
    ) -> dict[str, Shaped[np.ndarray, "..."]]:
        codes, scale = np.empty(self.shape, np.int8), np.empty(self.shape[1], np.float32)
        for at in _columns(self.shape):
            part = weight[:, at].astype(np.float32)
            scale[at] = np.abs(part).max(axis=0) / 127
            codes[:, at] = np.rint(part / np.where(scale[at], scale[at], 1.0))
        return {"codes": codes, "scale": scale}

    @staticmethod
    def restore(
        codes: Int[Array, "d_in d_out"], scale: Float32[Array, " d_out"]
    ) -> Float32[Array, "d_in d_out"]:
        return codes.astype(jnp.float32) * scale[None]


class Nf4(QuantizedWeight):
    """NF4: 4-bit codes of the nearest quantile of a normal distribution, scaled by block.

    A block is `NF4_BLOCK` consecutive weights of one output (fewer where that does not divide
    `in`), scaled by its largest absolute value. Two consecutive weights share a byte. With float32
    scales, a weight takes 4.5 bits.
    """

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str]) -> None:
        if shape[0] % 2:
            raise ConfigError(
                f"nf4 puts two weights into a byte, so {shape[0]} inputs must be even: use int8"
            )
        self.shape = shape
        self.block = int(np.gcd(shape[0], NF4_BLOCK))
        halved, blocks = (shape[0] // 2, shape[1]), (shape[0] // self.block, shape[1])
        self.codes = nnx.Param(jnp.zeros(halved, jnp.uint8), axes=axes)
        self.scale = nnx.Param(jnp.zeros(blocks, jnp.float32), axes=axes)

    def encode(
        self, weight: Float[np.ndarray, "d_in d_out"]
    ) -> dict[str, Shaped[np.ndarray, "..."]]:
        blocks = self.shape[0] // self.block
        codes = np.empty((self.shape[0] // 2, self.shape[1]), np.uint8)
        scale = np.empty((blocks, self.shape[1]), np.float32)
        between = (LEVELS[1:] + LEVELS[:-1]) / 2
        for at in _columns(self.shape):
            part = weight[:, at].astype(np.float32).reshape(blocks, self.block, -1)
            scale[:, at] = np.abs(part).max(axis=1)
            part /= np.where(scale[:, at], scale[:, at], 1.0)[:, None]
            nearest = np.searchsorted(between, part).astype(np.uint8).reshape(self.shape[0], -1)
            codes[:, at] = nearest[::2] << 4 | nearest[1::2]
        return {"codes": codes, "scale": scale}

    @staticmethod
    def restore(
        codes: UInt[Array, "half d_out"], scale: Float32[Array, "blocks d_out"]
    ) -> Float32[Array, "d_in d_out"]:
        (half, d_out), blocks = codes.shape, scale.shape[0]
        pairs = jnp.stack([codes >> 4, codes & 15], axis=1)  # [in / 2, 2, out]
        levels = jnp.asarray(LEVELS)[pairs].reshape(blocks, -1, d_out)
        return (levels * scale[:, None]).reshape(2 * half, d_out)


KINDS: dict[str, type[Any]] = {"int8": Int8, "nf4": Nf4}


def check_kind(kind: str) -> None:
    """Check the name of a quantization; "" means none.

    Raises:
        ConfigError: it is unknown; with the near names.
    """
    if kind and kind not in KINDS:
        raise ConfigError(
            f"unknown quantization {kind!r}: {did_you_mean(kind, KINDS)}, or '' for none"
        )


def _levels() -> Float32[np.ndarray, "16"]:
    """The 16 levels: quantiles of N(0, 1) in [-1, 1] with an exact 0 (appendix E)."""
    normal = statistics.NormalDist()
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    positive = [normal.inv_cdf(p) for p in np.linspace(outermost, 0.5, 9)[:-1].tolist()]
    negative = [-normal.inv_cdf(p) for p in np.linspace(outermost, 0.5, 8)[:-1].tolist()]
    return (np.sort([*negative, 0.0, *positive]) / max(positive)).astype(np.float32)


def _columns(shape: tuple[int, int]) -> list[slice]:
    return [slice(start, start + _COLUMNS) for start in range(0, shape[1], _COLUMNS)]


LEVELS = _levels()
