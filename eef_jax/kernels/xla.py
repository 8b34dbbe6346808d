"""Attention in plain XLA operations: runs everywhere, and what others are checked against.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, g = n / k, h head dim.
Knows nothing of models or caches beyond the arrays it is given.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Added to the score of a pair that must not see each other. Finite, so that a row that sees nothing
# (padding) gives some number instead of nan.
MASKED = -1e9
BLOCK = 128


def attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Causal attention within segments, query block by query block.

    A block of queries is only ever multiplied with the keys up to its own end, which leaves out
    nearly half of the work of the full [t, t] square.

    Args:
        q: [b, n, t, h].
        k: [b, k, t, h].
        v: [b, k, t, h].
        segment_ids: i32[b, t].

    Returns:
        [b, n, t, h].
    """
    b, n, t, h = q.shape
    q = q.reshape(b, k.shape[1], -1, t, h) * h**-0.5
    blocks = []
    for start in range(0, t, BLOCK):
        end = min(start + BLOCK, t)
        causal = jnp.arange(start, end)[:, None] >= jnp.arange(end)[None, :]
        same = segment_ids[:, start:end, None] == segment_ids[:, None, :end]
        bias = jnp.where(same & causal, 0.0, MASKED).astype(q.dtype)
        blocks.append(_attend(q[..., start:end, :], k[:, :, :end], v[:, :, :end], bias))
    return jnp.concatenate(blocks, axis=3).reshape(b, n, t, h)


def cached(
    q: jax.Array,
    k: Sequence[jax.Array],
    v: Sequence[jax.Array],
    positions: jax.Array,
) -> jax.Array:
    """Attention of new tokens to a cache that already holds them.

    Args:
        q: [b, n, c, h], the new tokens.
        k: arrays [b, k, s, h]; laid end to end, entry i is the token at position i.
        v: likewise.
        positions: i32[b, c]; a token sees the entries up to its own position.

    Returns:
        [b, n, c, h].
    """
    b, n, c, h = q.shape
    kv_heads = k[0].shape[1]
    # The query heads of one kv head stand in one matrix beside its new tokens: [b, k, g * c, h].
    q = (q * h**-0.5).reshape(b, kv_heads, -1, h)
    scores = jnp.concatenate([_einsum("bkch,bksh->bkcs", q, block) for block in k], axis=-1)
    seen = jnp.arange(scores.shape[-1])[None, None, :] <= positions[:, :, None]
    bias = jnp.where(seen, 0.0, MASKED).astype(scores.dtype)
    scores = scores.reshape(b, kv_heads, n // kv_heads, c, -1) + bias[:, None, None]
    weights = jax.nn.softmax(scores, axis=-1).reshape(b, kv_heads, q.shape[2], -1)
    out, start = jnp.zeros_like(q), 0
    for block in v:
        end = start + block.shape[2]
        out += _einsum("bkcs,bksh->bkch", weights[..., start:end], block)
        start = end
    return out.reshape(b, n, c, h)


def _einsum(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """A product in the type of `x`, whatever the cache is stored in."""
    return jnp.einsum(equation, x, y.astype(x.dtype))


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
    """Attend with q [b, k, g, t, h], k and v [b, k, s, h], bias [b, t, s].

    The softmax's division comes after the product with the values, on [t, h] instead of [t, s]
    entries: with its backward pass 10 % of a training step of a small model on CPU.
    """
    scores = jnp.einsum("bkgth,bksh->bkgts", q, k) + bias[:, None, None]
    peak = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - peak)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return jnp.einsum("bkgts,bksh->bkgth", weights, v) / total
