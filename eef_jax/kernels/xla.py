"""Attention in plain XLA operations: runs everywhere, and what others are checked against.

Products and softmax accumulate in float32 whatever type the arrays have. Knows nothing of models.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, g = n / k, h head dim.
"""

import jax
import jax.numpy as jnp

from eef_jax.kernels.scores import Scores

# Added to the score of a pair that must not see each other. Finite, so that a row that sees nothing
# (padding) gives some number instead of nan.
MASKED = -1e9
BLOCK = 128


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, scores: Scores
) -> jax.Array:
    """Causal attention within segments, query block by query block.

    A block of queries is only ever multiplied with the keys from its window's start up to its own
    end: without a window that leaves out nearly half of the work of the full [t, t] square.

    Args:
        q: [b, n, t, h].
        k: [b, k, t, h].
        v: [b, k, t, h].
        segment_ids: i32[b, t]; equal ids stand side by side, so that places in the row are as far
            apart as positions are.
        scores: see `Scores`.

    Returns:
        [b, n, t, h].
    """
    b, n, t, h = q.shape
    q = q.reshape(b, k.shape[1], -1, t, h) * scores.scale
    blocks = []
    for start in range(0, t, BLOCK):
        end = min(start + BLOCK, t)
        first = 0 if scores.window is None else max(0, start + 1 - scores.window)
        apart = jnp.arange(start, end)[:, None] - jnp.arange(first, end)[None, :]
        same = segment_ids[:, start:end, None] == segment_ids[:, None, first:end]
        bias = jnp.where(same & seen(apart, scores), 0.0, MASKED)
        keys, values = k[:, :, first:end], v[:, :, first:end]
        blocks.append(_attend(q[..., start:end, :], keys, values, bias, scores))
    return jnp.concatenate(blocks, axis=3).reshape(b, n, t, h)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, scores: Scores) -> jax.Array:
    """Attend with q [b, k, g, t, h], k and v [b, k, s, h], bias [b, t, s].

    The softmax's division comes after the product with the values, on [t, h] instead of [t, s]
    entries: with its backward pass 10 % of a training step of a small model on CPU.
    """
    scored = capped(_einsum("bkgth,bksh->bkgts", q, k), scores) + bias[:, None, None]
    peak = jax.lax.stop_gradient(jnp.max(scored, axis=-1, keepdims=True))
    weights = jnp.exp(scored - peak)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = _einsum("bkgts,bksh->bkgth", weights.astype(v.dtype), v)
    return (out / total).astype(q.dtype)


def seen(apart: jax.Array, scores: Scores) -> jax.Array:
    """Whether a key so many tokens before its query is seen by it (causality and window)."""
    causal = apart >= 0
    return causal if scores.window is None else causal & (apart < scores.window)


def capped(scored: jax.Array, scores: Scores) -> jax.Array:
    """Scores within the bound, if there is one."""
    cap = scores.softcap
    return scored if cap is None else cap * jnp.tanh(scored / cap)


def _einsum(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
