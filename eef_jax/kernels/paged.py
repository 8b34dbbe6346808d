"""Attention to a paged cache in plain XLA operations, for one new token a row or for whole chunks.

Values are [p, k, s, h]; keys are [p, k, s, h], or transposed [p, k, h, s]: a product then
contracts an axis that is not the right operand's last, which XLA on CPU does three to four times
faster.
Products and softmax accumulate in float32. Knows page tables; knows neither models nor who owns a
page.

Legend: b rows, c tokens of a row, p pages, s entries of a page, w pages of a row, n query heads,
k kv heads, g = n / k, h head dim.
"""

import jax
import jax.numpy as jnp

from eef_jax.kernels.spec import AttentionSpec
from eef_jax.kernels.xla import MASK_BIAS, softcap, visible

BLOCK = 512  # keys that `chunks` takes at once


def decode_in_place(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    table: jax.Array,
    positions: jax.Array,
    spec: AttentionSpec,
) -> jax.Array:
    """Attention of one token a row; a page must not stand in the tables of two rows.

    Queries go to the pages instead of pages to the queries: every page is multiplied where it lies
    with its row's query, and a row's partial sums are put together after. On CPU, where gathering
    pages takes five times as long as multiplying them, this is the fast way; it costs as much as
    the pool is large.

    Args:
        q: [b, n, h].
        k: [p, k, h, s].
        v: [p, k, s, h].
        table: i32[b, w] the row's pages in order; p where there is none.
        positions: i32[b] of the tokens; below 0 for rows without one.
        spec: see `AttentionSpec`.

    Returns:
        [b, n, h].
    """
    (b, n, h), (p, kv_heads, _, s) = q.shape, k.shape
    q = (q * spec.scale).reshape(b, kv_heads, n // kv_heads, h)
    rows = jnp.broadcast_to(jnp.arange(b)[:, None], table.shape)
    owner = jnp.zeros((p,), jnp.int32).at[table].set(rows, mode="drop")
    first = (
        jnp.zeros((p,), jnp.int32)
        .at[table]
        .set(jnp.broadcast_to(jnp.arange(table.shape[1]) * s, table.shape), mode="drop")
    )
    apart = positions[owner][:, None] - (first[:, None] + jnp.arange(s))
    bias = jnp.where(visible(apart, spec), 0.0, MASK_BIAS)[:, None, None]
    products = _einsum("pkgh,pkhs->pkgs", q[owner], k.astype(q.dtype))
    scored = softcap(products, spec) + bias
    peak = jnp.max(scored, axis=-1)
    weights = jnp.exp(scored - peak[..., None])
    total = jnp.sum(weights, axis=-1)
    mixed = _einsum("pkgs,pksh->pkgh", weights.astype(q.dtype), v.astype(q.dtype))
    return _together(peak, total, mixed, table).astype(q.dtype).reshape(b, n, h)


def prefill(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    table: jax.Array,
    positions: jax.Array,
    spec: AttentionSpec,
    *,
    keys_transposed: bool,
) -> jax.Array:
    """Attention of several tokens a row to the row's pages, their own entries included.

    Gathers the pages; several rows may share them.

    Args:
        q: [b, n, c, h].
        k: [p, k, s, h], or [p, k, h, s] if `keys_transposed`.
        v: [p, k, s, h].
        table: i32[b, w] the row's pages in order; p where there is none.
        positions: i32[b, c]; below 0 for padding.
        spec: see `AttentionSpec`.
        keys_transposed: whether keys are [p, k, h, s].

    Returns:
        [b, n, c, h].
    """
    (b, n, c, h), (pages, kv_heads, s, _) = q.shape, v.shape
    # The query heads of one kv head stand in one matrix: [b, k, g * c, h].
    q = (q * spec.scale).reshape(b, kv_heads, -1, h)
    peak = jnp.full((*q.shape[:3], 1), MASK_BIAS, jnp.float32)
    total, out = jnp.zeros_like(peak), jnp.zeros(q.shape, jnp.float32)
    # Block by block (Milakov & Gimelshein 2018, arXiv:1805.02867).
    per = pages_per_block(s)
    for first in range(0, table.shape[1], per):
        page = jnp.minimum(table[:, first : first + per], pages - 1)
        values = v[page].swapaxes(1, 2).reshape(b, kv_heads, -1, h).astype(q.dtype)
        if keys_transposed:
            keys = k[page].transpose(0, 2, 3, 1, 4).reshape(b, kv_heads, h, -1)
        else:
            keys = k[page].swapaxes(1, 2).reshape(values.shape)
        equation = "bkch,bkhs->bkcs" if keys_transposed else "bkch,bksh->bkcs"
        scored = softcap(_einsum(equation, q, keys.astype(q.dtype)), spec)
        apart = positions[:, :, None] - (first * s + jnp.arange(values.shape[2]))
        bias = jnp.where(visible(apart, spec), 0.0, MASK_BIAS)
        scored = scored.reshape(b, kv_heads, n // kv_heads, c, -1) + bias[:, None, None]
        scored = scored.reshape(b, kv_heads, q.shape[2], -1)
        higher = jnp.maximum(peak, jnp.max(scored, axis=-1, keepdims=True))
        weights, shrink = jnp.exp(scored - higher), jnp.exp(peak - higher)
        mixed = _einsum("bkcs,bksh->bkch", weights.astype(q.dtype), values)
        total = total * shrink + jnp.sum(weights, axis=-1, keepdims=True)
        out, peak = out * shrink + mixed, higher
    return (out / total).astype(q.dtype).reshape(b, n, c, h)


def pages_per_block(page: int) -> int:
    """How many pages of so many entries `chunks` takes at once.

    Products this wide run about twice as fast on CPU as those of one page, and what they make still
    fits the processor's cache. A row's bits depend on where blocks begin, so tables of all widths
    begin theirs at the same pages.
    """
    return max(BLOCK // page, 1)


def _together(peak: jax.Array, total: jax.Array, mixed: jax.Array, table: jax.Array) -> jax.Array:
    """Put the pages' softmax parts [p, k, g (h)] together by row: [b, k, g, h]."""
    here = (table < len(peak))[:, :, None, None]  # [b, w, k, g]
    table = jnp.minimum(table, len(peak) - 1)
    peaks = jnp.where(here, peak[table], MASK_BIAS)
    share = jnp.where(here, jnp.exp(peaks - jnp.max(peaks, axis=1, keepdims=True)), 0.0)
    whole = jnp.sum(share * total[table], axis=1)
    out = jnp.sum(share[..., None] * mixed[table], axis=1)
    return out / jnp.maximum(whole, 1e-30)[..., None]


def _einsum(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
