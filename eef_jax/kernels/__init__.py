"""The attention registry: several implementations, all taking and giving the same arrays.

`IMPLEMENTATIONS` maps a name to a causal self-attention for packed rows, `DECODING` to the
attention of one new token a row to a paged cache. `xla` and `gathered` run everywhere and are the
references that any other one is tested against. Knows nothing of models.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from eef_jax.errors import ConfigError, near
from eef_jax.kernels import paged, xla
from eef_jax.kernels.paged import chunks as chunks
from eef_jax.kernels.scores import Scores as Scores

Attention = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Scores], jax.Array]
Decoding = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, Scores], jax.Array]

IMPLEMENTATIONS: dict[str, Attention] = {"xla": xla.attention}
DECODING: dict[str, Decoding] = {"pages": paged.pages_in_place, "gathered": paged.gathered}
# What multiplies pages where they lie can serve a page to one row only.
ONE_READER = frozenset({"pages"})


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    scores: Scores,
    *,
    implementation: str,
) -> jax.Array:
    """Causal attention within equal segment ids.

    Args:
        q: [b, n, t, h] queries.
        k: [b, k, t, h] keys; n is a multiple of k.
        v: [b, k, t, h] values.
        segment_ids: i32[b, t]; equal ids stand side by side.
        scores: how a query scores the keys, and how far back it sees.
        implementation: name in `IMPLEMENTATIONS`.

    Returns:
        [b, n, t, h].

    Raises:
        ConfigError: for an unknown name.
    """
    return _named(IMPLEMENTATIONS, implementation)(q, k, v, segment_ids, scores)


def decoding(implementation: str) -> Decoding:
    """The attention of one new token a row (see `paged.pages_in_place`) by its name.

    Raises:
        ConfigError: for an unknown name.
    """
    return _named(DECODING, implementation)


def _named(known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise ConfigError(f"unknown attention {name!r}: {near(name, known)}")
    return known[name]
