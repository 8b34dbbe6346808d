"""Attention in plain XLA operations: runs everywhere, and what others are checked against.

Products and softmax accumulate in float32 whatever type the arrays have. Knows nothing of models or
caches beyond the arrays it is given.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, g = n / k, h head dim.
"""

from collections.abc import Sequence

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
        bias = jnp.where(same & _seen(apart, scores), 0.0, MASKED)
        keys, values = k[:, :, first:end], v[:, :, first:end]
        blocks.append(_attend(q[..., start:end, :], keys, values, bias, scores))
    return jnp.concatenate(blocks, axis=3).reshape(b, n, t, h)


def cached(
    q: jax.Array,
    k: Sequence[jax.Array],
    v: Sequence[jax.Array],
    positions: jax.Array,
    scores: Scores,
) -> jax.Array:
    """Attention of new tokens to a cache that already holds them.

    Args:
        q: [b, n, c, h], the new tokens.
        k: arrays [b, k, s, h]; laid end to end, entry i is the token at position i.
        v: likewise.
        positions: i32[b, c]; a token sees the entries up to its own position, no further back than
            the window reaches.
        scores: see `Scores`.

    Returns:
        [b, n, c, h].
    """
    b, n, c, h = q.shape
    kv_heads = k[0].shape[1]
    # The query heads of one kv head stand in one matrix beside its new tokens: [b, k, g * c, h].
    q = (q * scores.scale).reshape(b, kv_heads, -1, h)
    products = [_einsum("bkch,bksh->bkcs", q, block.astype(q.dtype)) for block in k]
    scored = _capped(jnp.concatenate(products, axis=-1), scores)
    apart = positions[:, :, None] - jnp.arange(scored.shape[-1])[None, None, :]
    bias = jnp.where(_seen(apart, scores), 0.0, MASKED)
    scored = scored.reshape(b, kv_heads, n // kv_heads, c, -1) + bias[:, None, None]
    weights = jax.nn.softmax(scored, axis=-1).reshape(b, kv_heads, q.shape[2], -1).astype(q.dtype)
    out, start = jnp.zeros(q.shape, jnp.float32), 0
    for block in v:
        end = start + block.shape[2]
        out += _einsum("bkcs,bksh->bkch", weights[..., start:end], block.astype(q.dtype))
        start = end
    return out.astype(q.dtype).reshape(b, n, c, h)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, scores: Scores) -> jax.Array:
    """Attend with q [b, k, g, t, h], k and v [b, k, s, h], bias [b, t, s].

    The softmax's division comes after the product with the values, on [t, h] instead of [t, s]
    entries: with its backward pass 10 % of a training step of a small model on CPU.
    """
    scored = _capped(_einsum("bkgth,bksh->bkgts", q, k), scores) + bias[:, None, None]
    peak = jax.lax.stop_gradient(jnp.max(scored, axis=-1, keepdims=True))
    weights = jnp.exp(scored - peak)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = _einsum("bkgts,bksh->bkgth", weights.astype(v.dtype), v)
    return (out / total).astype(q.dtype)


def _seen(apart: jax.Array, scores: Scores) -> jax.Array:
    """Whether a key so many tokens before its query is seen by it (causality and window)."""
    causal = apart >= 0
    return causal if scores.window is None else causal & (apart < scores.window)


def _capped(scored: jax.Array, scores: Scores) -> jax.Array:
    cap = scores.softcap
    return scored if cap is None else cap * jnp.tanh(scored / cap)


def _einsum(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
