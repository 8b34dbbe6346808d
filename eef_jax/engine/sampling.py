"""Choosing the next token from scores, with keys that depend on the request alone.

Pure functions on arrays: b rows, v vocabulary. Knows nothing of models or of who asks.
"""

import dataclasses

import jax
import jax.numpy as jnp

from eef_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: scores are divided by it; 0 takes the best token.
        top_p: only the most likely tokens that together reach this probability are drawn (0-1].
        max_new_tokens: cap on the tokens of one answer, its stop token included.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise ConfigError(
                f"{self}: expected temperature >= 0, 0 < top_p <= 1 and max_new_tokens >= 1"
            )


def sample(
    logits: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Draw one token a row.

    Args:
        logits: f32[b, v].
        keys: u32[b, 2] raw key of each row's request.
        positions: i32[b] position the drawn token will have; folded into the key.
        temperature: f32[b]; 0 takes the best.
        top_p: f32[b].

    Returns:
        ids: i32[b].
        logprobs: f32[b] log-probability of each id under the distribution it was drawn from; for
            temperature 0, whose distribution is a point, under temperature 1.
    """
    greedy = temperature == 0
    scores = logits / jnp.where(greedy, 1.0, temperature)[:, None]
    top_p = jnp.where(greedy, 1.0, top_p)
    # Sorting and drawing cost more than a small model's layer: only done where a row needs it.
    scores = jax.lax.cond(jnp.any(top_p < 1), _nucleus, lambda s, _: s, scores, top_p)
    logprobs = jax.nn.log_softmax(scores, axis=-1)
    noise = jax.lax.cond(
        jnp.all(greedy), lambda *_: jnp.zeros_like(logits), _gumbel, keys, positions, logits
    )
    ids = jnp.argmax(logprobs + jnp.where(greedy[:, None], 0.0, noise), axis=-1)
    chosen = jnp.take_along_axis(logprobs, ids[:, None], axis=-1)[:, 0]
    return ids.astype(jnp.int32), chosen


def _nucleus(scores: jax.Array, top_p: jax.Array) -> jax.Array:
    """Rule out the tail (Holtzman et al. 2020, arXiv:1904.09751); the best token always stays."""
    ordered = jnp.sort(scores, axis=-1, descending=True)
    mass = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)
    kept = jnp.sum(mass < top_p[:, None], axis=-1, keepdims=True)
    lowest = jnp.take_along_axis(ordered, jnp.minimum(kept, scores.shape[-1] - 1), axis=-1)
    return jnp.where(scores >= lowest, scores, -jnp.inf)


def _gumbel(keys: jax.Array, positions: jax.Array, like: jax.Array) -> jax.Array:
    def row(key: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), position)
        return jax.random.gumbel(key, like.shape[-1:], like.dtype)

    return jax.vmap(row)(keys, positions)
