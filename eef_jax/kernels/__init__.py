"""The attention registry: several implementations, all taking and giving the same arrays.

`IMPLEMENTATIONS` maps a name to a causal self-attention for packed rows. `xla` runs everywhere
and is the reference that any other one is tested against. Knows nothing of models.
"""

from collections.abc import Callable

import jax

from eef_jax.errors import ConfigError, near
from eef_jax.kernels import xla
from eef_jax.kernels.scores import Scores as Scores

Attention = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Scores], jax.Array]

IMPLEMENTATIONS: dict[str, Attention] = {"xla": xla.attention}

cached_attention = xla.cached


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
    if implementation not in IMPLEMENTATIONS:
        raise ConfigError(
            f"unknown attention {implementation!r}: {near(implementation, IMPLEMENTATIONS)}"
        )
    return IMPLEMENTATIONS[implementation](q, k, v, segment_ids, scores)
