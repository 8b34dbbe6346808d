"""Rotary position embeddings (arXiv:2104.09864): how fast pairs turn, how that is stretched.

Knows positions and head widths; not which layer turns how (that is `ModelConfig`'s to say).

Legend: b batch, t tokens, n heads, h head dim.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

# Cosine and sine of each position's angles, float32[b, t, h / 2].
RotaryEmbedding = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinearScaling:
    """All frequencies divided by one factor (arXiv:2306.15595).

    Attributes:
        factor: how many times longer the context becomes.
    """

    factor: float

    def scale_frequencies(self, frequency: jax.Array) -> jax.Array:
        """Slow frequencies [h / 2], in radians a position, down."""
        return frequency / self.factor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """Only the slow frequencies divided, with a smooth passage (arXiv:2407.21783, section 3.2).

    Attributes:
        factor: what the slowest are divided by.
        low_freq_factor: those that make fewer turns in the original context are slow.
        high_freq_factor: those that make more turns stay as they are.
        original_max_positions: the original context, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def scale_frequencies(self, frequency: jax.Array) -> jax.Array:
        """Slow frequencies [h / 2], in radians a position, down."""
        low, high = self.low_freq_factor, self.high_freq_factor
        turns = self.original_max_positions * frequency / (2 * math.pi)
        smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        return frequency * (smooth + (1.0 - smooth) / self.factor)


RopeScaling = LinearScaling | Llama3Scaling


def rotary_embedding(
    positions: jax.Array, *, head_dim: int, theta: float, scaling: RopeScaling | None
) -> RotaryEmbedding:
    """Cosine and sine of the angles of positions i32[b, t]; pair i turns theta ** (-2 i / h)."""
    half = head_dim // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is not None:
        frequency = scaling.scale_frequencies(frequency)
    angle = positions[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def materialize(angles: RotaryEmbedding) -> RotaryEmbedding:
    """The same, computed once: for programs that read them in many places.

    XLA on CPU computes sines and cosines anew for every layer, head and gather that reads them,
    barriers or not; but it fuses nothing through a product. This one is with the identity, and
    exact.
    """
    one = jnp.eye(angles[0].shape[-1], dtype=jnp.float32)
    cos, sin = (jnp.dot(part, one, precision=jax.lax.Precision.HIGHEST) for part in angles)
    return cos, sin


def apply_rotary(x: jax.Array, angles: RotaryEmbedding) -> jax.Array:
    """Turn the pairs (i, i + h / 2) of [b, t, n, h] by the angles of their positions."""
    cos, sin = (part[:, :, None, :].astype(x.dtype) for part in angles)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
