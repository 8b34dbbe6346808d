"""Rows of new tokens through a paged cache, as the engine lays them out."""

import jax.numpy as jnp
import numpy as np

from eef_jax.models.cache import Cache, DecodeView, PrefillView, init_cache

PAGE = 16


def cache(
    config, rows: int, length: int, dtype="float32", *, attention="pages"
) -> tuple[Cache, np.ndarray]:
    """An empty cache for rows of a length, and their page table [b, w]: pages in no order."""
    width = -(-length // PAGE)
    table = np.random.default_rng(0).permutation(rows * width).reshape(rows, width)
    made = init_cache(
        config, num_pages=rows * width, page_size=PAGE, dtype=dtype, attention=attention
    )
    return made, table.astype(np.int32)


def runs(positions, table, attention) -> PrefillView:
    """Each row a run of tokens at positions [b, c]; below 0 for padding."""
    positions = jnp.asarray(positions)
    (b, c), t = positions.shape, positions.size
    token = jnp.where(positions < 0, t, jnp.arange(t).reshape(b, c))
    return PrefillView(
        positions=positions.reshape(-1),
        row=jnp.repeat(jnp.arange(b), c),
        column=jnp.tile(jnp.arange(c), b),
        token=token,
        table=jnp.asarray(table),
        attention=attention,
    )


def extend(decoder, cache, tokens, positions, table, *, attention="pages"):
    """The decoder's output [b, c, d] for tokens [b, c], and the cache; one token a row decodes."""
    if tokens.shape[1] == 1:
        view: DecodeView | PrefillView = DecodeView(
            positions=positions[:, 0], table=jnp.asarray(table), attention=attention
        )
    else:
        view = runs(positions, table, attention)
    out, cache = decoder.extend(jnp.asarray(tokens).reshape(-1), view, cache)
    return out.reshape(*tokens.shape, -1), cache
