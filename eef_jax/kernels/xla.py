"""Attention in plain XLA operations: runs everywhere, and is what other kernels are checked against.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, g = n / k, h head dim.
Knows nothing of models or caches beyond the arrays it is given.
"""

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


def cached(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> jax.Array:
    """Attention of new tokens to a cache that already holds them.

    Args:
        q: [b, n, c, h], the new tokens.
        k: [b, s, k, h], cache rows; entry i is the token at position i.
        v: [b, s, k, h].
        positions: i32[b, c]; a token sees the cache entries up to its own position.

    Returns:
        [b, n, c, h].
    """
    b, n, c, h = q.shape
    q = q.reshape(b, k.shape[2], -1, c, h) * h**-0.5
    seen = jnp.arange(k.shape[1])[None, None, :] <= positions[:, :, None]
    bias = jnp.where(seen, 0.0, MASKED).astype(q.dtype)
    out = _attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), bias)
    return out.reshape(b, n, c, h)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
    """Attend with q [b, k, g, t, h], k and v [b, k, s, h], bias [b, t, s]."""
    scores = jnp.einsum("bkgth,bksh->bkgts", q, k) + bias[:, None, None]
    return jnp.einsum("bkgts,bksh->bkgth", jax.nn.softmax(scores, axis=-1), v)
