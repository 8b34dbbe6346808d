"""Choosing the next token from scores, with keys that depend on the request alone.

`SamplingParams` is what a caller asks for, `SamplingArrays` the same for all rows of a dispatch,
as arrays. Pure functions: b rows, v vocabulary, n stop ids. Knows nothing of models or of who asks.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eef_jax.errors import ConfigError

Array = Any  # jax arrays in a program, numpy arrays on the way to it

MAX_STOP_IDS = 8  # stop ids of a request that the device knows
NO_TOKEN = -1
COLDEST, HOTTEST = 1e-6, 1e6  # temperatures that f32 scores can be divided by
LARGEST = 2**31 - 1  # number that the device's i32 hold


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn.

    Attributes:
        temperature: scores are divided by it; 0 takes the best token.
        top_p: only the most likely tokens that together reach this probability are drawn (0-1].
        top_k: only so many of the most likely tokens are drawn; 0 for all.
        min_new_tokens: stop ids have no probability before so many tokens were drawn.
        max_new_tokens: cap on the tokens of one answer, its stop token included.
        stop_ids: ids that end an answer beside the engine's own, at most 8 with these.
        stop: called with an answer's ids after each of them; true ends it there. This is where stop
            strings come in: the engine itself knows no text.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_new_tokens: int = 0
    max_new_tokens: int = 64
    stop_ids: tuple[int, ...] = ()
    stop: Callable[[Sequence[int]], bool] | None = None

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or COLDEST <= self.temperature <= HOTTEST):
            raise ConfigError(
                f"{self}: expected a temperature of 0, or from {COLDEST} to {HOTTEST:g}"
            )
        if not 0 < self.top_p <= 1 or not 0 <= self.top_k <= LARGEST:
            raise ConfigError(f"{self}: expected 0 < top_p <= 1 and 0 <= top_k <= {LARGEST}")
        if any(not 0 <= i <= LARGEST for i in self.stop_ids):
            raise ConfigError(f"{self}: expected stop_ids from 0 to {LARGEST}")
        if self.max_new_tokens < 1 or not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ConfigError(
                f"{self}: expected max_new_tokens >= 1 and 0 <= min_new_tokens <= max_new_tokens"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingArrays:
    """How each row of a dispatch draws.

    Attributes:
        keys: u32[b, 2] raw key of each row's request.
        temperature: f32[b]; 0 takes the best.
        top_p: f32[b].
        top_k: i32[b]; 0 for all.
        stops: i32[b, n] ids that end the row's answer; `NO_TOKEN` where there is none.
        open_from: i32[b] first position at which a stop id may be drawn.
    """

    keys: Array
    temperature: Array
    top_p: Array
    top_k: Array
    stops: Array
    open_from: Array

    @classmethod
    def empty(cls, rows: int) -> "SamplingArrays":
        """Rows that take the best token and never stop, as numpy arrays to be filled."""
        return cls(
            keys=np.zeros((rows, 2), np.uint32),
            temperature=np.zeros(rows, np.float32),
            top_p=np.ones(rows, np.float32),
            top_k=np.zeros(rows, np.int32),
            stops=np.full((rows, MAX_STOP_IDS), NO_TOKEN, np.int32),
            open_from=np.zeros(rows, np.int32),
        )


def sample(
    logits: jax.Array, draws: SamplingArrays, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draw one token a row.

    Args:
        logits: f32[b, v].
        draws: how.
        positions: i32[b] position the drawn token will have; folded into the key.

    Returns:
        ids: i32[b].
        logprobs: f32[b] log-probability of each id under the distribution it was drawn from; for
            temperature 0, whose distribution is a point, under temperature 1.
    """
    greedy = draws.temperature == 0
    # Sorting and drawing cost more than a small model's layer: only done where a row needs it.
    early = (positions < draws.open_from) & jnp.any(draws.stops >= 0, axis=1)
    scores = jax.lax.cond(jnp.any(early), _without, lambda s, *_: s, logits, draws.stops, early)
    scores = scores / jnp.where(greedy, 1.0, draws.temperature)[:, None]
    cut = ~greedy & ((draws.top_p < 1) | (draws.top_k > 0))
    scores = jax.lax.cond(
        jnp.any(cut),
        _nucleus,
        lambda s, *_: s,
        scores,
        jnp.where(greedy, 1.0, draws.top_p),
        jnp.where(greedy, 0, draws.top_k),
    )
    noise = jax.lax.cond(
        jnp.all(greedy),
        lambda *_: jnp.zeros_like(logits),
        _gumbel,
        draws.keys,
        positions,
        logits,
    )
    best = jnp.max(scores, axis=-1, keepdims=True)
    total = jnp.log(jnp.sum(jnp.exp(scores - best), axis=-1))
    ids = _first_best(scores + jnp.where(greedy[:, None], 0.0, noise))
    chosen = jnp.take_along_axis(scores - best, ids[:, None], axis=-1)[:, 0]
    return ids, chosen - total


def _first_best(scores: jax.Array) -> jax.Array:
    """`argmax` by two reductions: XLA's own took 5 ms for [48, 49152] on CPU, a maximum 0.2."""
    at_best = scores == jnp.max(scores, axis=-1, keepdims=True)
    places = jnp.arange(scores.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(at_best, places, scores.shape[-1] - 1), axis=-1)


def _without(logits: jax.Array, stops: jax.Array, early: jax.Array) -> jax.Array:
    """Rule out the stop ids of the rows that may not stop yet."""
    rows = jnp.arange(len(stops))[:, None]
    at = jnp.where(early[:, None] & (stops >= 0), stops, logits.shape[-1])
    return logits.at[rows, at].set(-jnp.inf, mode="drop")


def _nucleus(scores: jax.Array, top_p: jax.Array, top_k: jax.Array) -> jax.Array:
    """Rule out the tail (Holtzman et al. 2020, arXiv:1904.09751); the best token always stays."""
    size = scores.shape[-1]
    ordered = jnp.sort(scores, axis=-1, descending=True)
    kept = jnp.where(top_k > 0, jnp.minimum(top_k, size), size)[:, None] - 1  # index of the last
    lowest = jnp.take_along_axis(ordered, kept, axis=-1)
    ordered = jnp.where(ordered >= lowest, ordered, -jnp.inf)
    mass = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)
    last = jnp.sum(mass < top_p[:, None], axis=-1, keepdims=True)
    last = jnp.where(top_p[:, None] < 1, last, size)  # rounded, mass may be 1 before its end
    lowest = jnp.take_along_axis(ordered, jnp.minimum(last, kept), axis=-1)
    return jnp.where(scores >= lowest, scores, -jnp.inf)


def _gumbel(keys: jax.Array, positions: jax.Array, like: jax.Array) -> jax.Array:
    def row(key: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), position)
        return jax.random.gumbel(key, like.shape[-1:], like.dtype)

    return jax.vmap(row)(keys, positions)
