"""Rotary position embeddings (arXiv:2104.09864) and the scalings that extend their context.

Legend: b batch, t tokens, n heads, h head dim, half = h / 2.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

# Cosines and sines of the angles of each position.
RotaryEmbedding = tuple[Float32[Array, "b t half"], Float32[Array, "b t half"]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinearScaling:
    """Position interpolation: all frequencies divided by one factor (arXiv:2306.15595).

    Attributes:
        factor: new context length over the original one.
    """

    factor: float

    def scale_frequencies(self, frequency: Float32[Array, " half"]) -> Float32[Array, " half"]:
        """Scale frequencies, in radians per position."""
        return frequency / self.factor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """Low frequencies divided, high ones kept, a ramp between (arXiv:2407.21783, section 3.2).

    Attributes:
        factor: divisor of the low frequencies.
        low_freq_factor: frequencies with fewer turns than this in the original context are low.
        high_freq_factor: frequencies with more turns than this are left as they are.
        original_max_positions: original context length, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def scale_frequencies(self, frequency: Float32[Array, " half"]) -> Float32[Array, " half"]:
        """Scale frequencies, in radians per position."""
        low, high = self.low_freq_factor, self.high_freq_factor
        # Of each pair in the original context: its length over the wavelength of the pair.
        turns = self.original_max_positions * frequency / (2 * math.pi)
        smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        return frequency * (smooth + (1.0 - smooth) / self.factor)


RopeScaling = LinearScaling | Llama3Scaling


def rotary_embedding(
    positions: Int[Array, "b t"], *, head_dim: int, theta: float, scaling: RopeScaling | None
) -> RotaryEmbedding:
    """Cosine and sine of the angles of positions; pair i turns theta ** (-2 i / h)."""
    # Angles in float32: in bfloat16, positions above 256 would already be rounded.
    half = head_dim // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is not None:
        frequency = scaling.scale_frequencies(frequency)
    angle = positions[..., None].astype(jnp.float32) * frequency[None, None]
    return jnp.cos(angle), jnp.sin(angle)


def materialize(angles: RotaryEmbedding) -> RotaryEmbedding:
    """A rotary embedding that XLA computes once, for programs that read it in many places."""
    # XLA on CPU recomputes sines and cosines in every layer, head and gather that reads them, with
    # or without barriers, but it fuses nothing through a matrix product. The product with the
    # identity is exact and saves 40 of 700 ms of a prefill and 30 of 500 ms of a decode.
    identity = jnp.eye(angles[0].shape[-1], dtype=jnp.float32)
    cos, sin = (jnp.dot(part, identity, precision=jax.lax.Precision.HIGHEST) for part in angles)
    return cos, sin


def apply_rotary(x: Float[Array, "b t n h"], angles: RotaryEmbedding) -> Float[Array, "b t n h"]:
    """Rotate the pairs (i, i + h / 2) of x by the angles of their positions."""
    cos, sin = (part[:, :, None, :].astype(x.dtype) for part in angles)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
