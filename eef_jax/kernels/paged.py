"""Attention over a paged KV cache in plain XLA operations, for single tokens and for chunks.

Operates on block tables only; the allocator lives in `engine/`. Values are [p, k, s, h]; keys are
[p, k, s, h], or transposed [p, k, h, s]: a product then contracts an axis that is not the last one
of the right operand, which XLA on CPU does three to four times faster. Products and softmax
accumulate in float32.

Legend: b rows, c tokens of a row, p pages, s positions of a page, w pages of a row, n query heads,
k kv heads, g = n / k, h head dim.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eef_jax.kernels.spec import AttentionSpec
from eef_jax.kernels.xla import MASK_BIAS, softcap, visible

BLOCK = 512  # keys that one step of `prefill_gathered` multiplies


def decode_in_place(
    q: Float[Array, "b n h"],
    k: Float[Array, "p k h s"],
    v: Float[Array, "p k s h"],
    table: Int[Array, "b w"],
    positions: Int[Array, " b"],
    spec: AttentionSpec,
) -> Float[Array, "b n h"]:
    """Attention of one token per row, for pages that belong to one row each.

    Args:
        q: queries.
        k: pages of keys, transposed.
        v: pages of values.
        table: each row's pages in order; p where there is none. No page is in two rows.
        positions: of the tokens; negative for rows without a token.
        spec: scale, window and softcap of the scores.

    Returns:
        The attended values of each query head.
    """
    # Each page is multiplied in place with its row's query, and the partial softmaxes of a row are
    # combined after. On CPU, gathering pages takes five times as long as multiplying them: 48 rows
    # of 6 pages took 5 to 18 ms per layer of SmolLM2-135M with a gather, 3 to 4 this way. But
    # the time grows with the whole cache, not with the pages in use.
    (b, n, h), (p, kv_heads, _, s) = q.shape, k.shape
    q = (q * spec.scale).reshape(b, kv_heads, n // kv_heads, h)
    rows = jnp.broadcast_to(jnp.arange(b)[:, None], table.shape)
    owner = jnp.zeros((p,), jnp.int32).at[table].set(rows, mode="drop")
    first = (
        jnp.zeros((p,), jnp.int32)
        .at[table]
        .set(jnp.broadcast_to(jnp.arange(table.shape[1]) * s, table.shape), mode="drop")
    )
    distance = positions[owner][:, None] - (first[:, None] + jnp.arange(s)[None])
    bias = jnp.where(visible(distance, spec), 0.0, MASK_BIAS)[:, None, None]
    products = _einsum("pkgh,pkhs->pkgs", q[owner], k.astype(q.dtype))
    scores = softcap(products, spec) + bias
    peak = jnp.max(scores, axis=-1)
    weights = jnp.exp(scores - peak[..., None])
    total = jnp.sum(weights, axis=-1)
    mixed = _einsum("pkgs,pksh->pkgh", weights.astype(q.dtype), v.astype(q.dtype))
    return _combine_pages(peak, total, mixed, table).astype(q.dtype).reshape(b, n, h)


def prefill_gathered(
    q: Float[Array, "b n c h"],
    k: Float[Array, "p k _ _"],
    v: Float[Array, "p k s h"],
    table: Int[Array, "b w"],
    positions: Int[Array, "b c"],
    spec: AttentionSpec,
    *,
    keys_transposed: bool,
) -> Float[Array, "b n c h"]:
    """Attention of several tokens per row over the row's pages, their own entries included.

    Gathers the pages, so rows may share them.

    Args:
        q: queries.
        k: pages of keys: [p, k, s, h], or [p, k, h, s] if `keys_transposed`.
        v: pages of values.
        table: each row's pages in order; p where there is none.
        positions: of the tokens; negative for padding.
        spec: scale, window and softcap of the scores.
        keys_transposed: layout of the keys.

    Returns:
        The attended values of each query head.
    """
    (b, n, c, h), (pages, kv_heads, s, _) = q.shape, v.shape
    # The query heads of one kv head form one matrix: [b, k, g * c, h].
    q = (q * spec.scale).reshape(b, kv_heads, -1, h)
    peak = jnp.full((*q.shape[:3], 1), MASK_BIAS, jnp.float32)
    total, out = jnp.zeros_like(peak), jnp.zeros(q.shape, jnp.float32)
    # Online softmax, block by block (Milakov & Gimelshein 2018, arXiv:1805.02867).
    per_block = pages_per_block(s)
    for first in range(0, table.shape[1], per_block):
        page = jnp.minimum(table[:, first : first + per_block], pages - 1)
        values = v[page].swapaxes(1, 2).reshape(b, kv_heads, -1, h).astype(q.dtype)
        if keys_transposed:
            keys = k[page].transpose(0, 2, 3, 1, 4).reshape(b, kv_heads, h, -1)
        else:
            keys = k[page].swapaxes(1, 2).reshape(values.shape)
        equation = "bkch,bkhs->bkcs" if keys_transposed else "bkch,bksh->bkcs"
        scores = softcap(_einsum(equation, q, keys.astype(q.dtype)), spec)
        columns = first * s + jnp.arange(values.shape[2])
        distance = positions[:, :, None] - columns[None, None]
        bias = jnp.where(visible(distance, spec), 0.0, MASK_BIAS)
        scores = scores.reshape(b, kv_heads, n // kv_heads, c, -1) + bias[:, None, None]
        scores = scores.reshape(b, kv_heads, q.shape[2], -1)
        new_peak = jnp.maximum(peak, jnp.max(scores, axis=-1, keepdims=True))
        weights, rescale = jnp.exp(scores - new_peak), jnp.exp(peak - new_peak)
        mixed = _einsum("bkcs,bksh->bkch", weights.astype(q.dtype), values)
        total = total * rescale + jnp.sum(weights, axis=-1, keepdims=True)
        out, peak = out * rescale + mixed, new_peak
    return (out / total).astype(q.dtype).reshape(b, n, c, h)


def pages_per_block(page_size: int) -> int:
    """Number of pages that one step of `prefill_gathered` multiplies.

    A row's bits depend on where blocks start, so tables of all widths start theirs at the same
    pages.
    """
    # 512 keys: on CPU such products reach 120 to 146 GFLOP/s, those of single pages of 128 reach
    # 53, and the result still fits the processor's cache.
    return max(BLOCK // page_size, 1)


def _combine_pages(
    peak: Float[Array, "p k g"],
    total: Float[Array, "p k g"],
    mixed: Float[Array, "p k g h"],
    table: Int[Array, "b w"],
) -> Float[Array, "b k g h"]:
    """Combine the pages' partial softmaxes by row."""
    exists = (table < len(peak))[:, :, None, None]  # [b, w, k, g]
    table = jnp.minimum(table, len(peak) - 1)
    peaks = jnp.where(exists, peak[table], MASK_BIAS)
    share = jnp.where(exists, jnp.exp(peaks - jnp.max(peaks, axis=1, keepdims=True)), 0.0)
    whole = jnp.sum(share * total[table], axis=1)
    out = jnp.sum(share[..., None] * mixed[table], axis=1)
    return out / jnp.maximum(whole, 1e-30)[..., None]


def _einsum(equation: str, x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
