"""Sampling the next token from logits, with PRNG keys that depend on the request alone.

`SamplingParams` is what a caller asks for; `SamplingArrays` holds it for all rows of a dispatch.
Legend: b rows, v vocabulary, n stop ids.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt32

from eef_jax.errors import ConfigError
from eef_jax.models.cache import AnyArray

MAX_STOP_IDS = 8  # of one request, on the device
NO_TOKEN = -1
# Dividing float32 logits by these stays finite.
MIN_TEMPERATURE = 1e-6
MAX_TEMPERATURE = 1e6
MAX_INT32 = 2**31 - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Parameters of sampling and the stop conditions.

    Attributes:
        temperature: divides the logits; 0: greedy.
        top_p: samples from the most likely tokens whose probabilities add up to this, in (0, 1].
        top_k: samples from this number of most likely tokens; 0: all.
        min_new_tokens: stop ids have probability 0 until this number of tokens was generated.
        max_new_tokens: cap on generated tokens, including the stop id.
        stop_ids: ids that end the generation, in addition to the engine's; at most 8 with those.
        stop_fn: called with the generated ids after each token; true ends the generation. Stop
            texts come in here, since the engine operates on token ids only.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_new_tokens: int = 0
    max_new_tokens: int = 64
    stop_ids: tuple[int, ...] = ()
    stop_fn: Callable[[Sequence[int]], bool] | None = None

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE):
            raise ConfigError(
                f"{self}: expected a temperature of 0, or from {MIN_TEMPERATURE} to "
                f"{MAX_TEMPERATURE:g}"
            )
        if not 0 < self.top_p <= 1 or not 0 <= self.top_k <= MAX_INT32:
            raise ConfigError(f"{self}: expected 0 < top_p <= 1 and 0 <= top_k <= {MAX_INT32}")
        if any(not 0 <= i <= MAX_INT32 for i in self.stop_ids):
            raise ConfigError(f"{self}: expected stop_ids from 0 to {MAX_INT32}")
        if self.max_new_tokens < 1 or not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ConfigError(
                f"{self}: expected max_new_tokens >= 1 and 0 <= min_new_tokens <= max_new_tokens"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingArrays:
    """Sampling parameters of each row of a decode dispatch.

    Attributes:
        keys: raw PRNG key of each row's request.
        temperature: divides the logits; 0: greedy.
        top_p: total probability of the tokens that are sampled from.
        top_k: number of tokens that are sampled from; 0: all.
        stop_ids: padded with `NO_TOKEN`.
        stop_from: first position at which a stop id can be sampled.
    """

    keys: UInt32[AnyArray, "b 2"]
    temperature: Float32[AnyArray, " b"]
    top_p: Float32[AnyArray, " b"]
    top_k: Int32[AnyArray, " b"]
    stop_ids: Int32[AnyArray, "b n"]
    stop_from: Int32[AnyArray, " b"]

    @classmethod
    def empty(cls, rows: int) -> "SamplingArrays":
        """Return numpy arrays to be filled, of greedy rows without stop ids."""
        return cls(
            keys=np.zeros((rows, 2), np.uint32),
            temperature=np.zeros(rows, np.float32),
            top_p=np.ones(rows, np.float32),
            top_k=np.zeros(rows, np.int32),
            stop_ids=np.full((rows, MAX_STOP_IDS), NO_TOKEN, np.int32),
            stop_from=np.zeros(rows, np.int32),
        )


def sample(
    logits: Float32[Array, "b v"], sampling: SamplingArrays, positions: Int32[Array, " b"]
) -> tuple[Int32[Array, " b"], Float32[Array, " b"]]:
    """Sample one token for each row.

    Args:
        logits: of the next token.
        sampling: parameters of the rows.
        positions: position that the sampled token will have; folded into the key.

    Returns:
        The ids, and the log-probability of each under the distribution it was sampled from; of
        greedy rows, whose distribution is a point mass, under temperature 1.
    """
    greedy = sampling.temperature == 0
    # Sorting and drawing noise cost more than a layer of a small model, so each stage runs only if
    # some row needs it. Rows that do not need it keep their bits when another row does.
    early = (positions < sampling.stop_from) & jnp.any(sampling.stop_ids >= 0, axis=1)
    masked = jax.lax.cond(
        jnp.any(early), _mask_stop_ids, lambda x, *_: x, logits, sampling.stop_ids, early
    )
    scaled = masked / jnp.where(greedy, 1.0, sampling.temperature)[:, None]
    truncated = ~greedy & ((sampling.top_p < 1) | (sampling.top_k > 0))
    scaled = jax.lax.cond(
        jnp.any(truncated),
        _truncate,
        lambda x, *_: x,
        scaled,
        jnp.where(greedy, 1.0, sampling.top_p),
        jnp.where(greedy, 0, sampling.top_k),
    )
    noise = jax.lax.cond(
        jnp.all(greedy),
        lambda *_: jnp.zeros_like(logits),
        _gumbel,
        sampling.keys,
        positions,
        logits,
    )
    best = jnp.max(scaled, axis=-1, keepdims=True)
    normalizer = jnp.log(jnp.sum(jnp.exp(scaled - best), axis=-1))
    ids = _argmax(scaled + jnp.where(greedy[:, None], 0.0, noise))  # the Gumbel-max trick
    sampled = jnp.take_along_axis(scaled - best, ids[:, None], axis=-1)[:, 0]
    return ids, sampled - normalizer


def _argmax(scores: Float[Array, "b v"]) -> Int32[Array, " b"]:
    """First index of each row's maximum."""
    # By two reductions: XLA's argmax took 5 ms for [48, 49152] on CPU, its maximum 0.2 ms.
    at_best = scores == jnp.max(scores, axis=-1, keepdims=True)
    indices = jnp.arange(scores.shape[-1], dtype=jnp.int32)[None]
    return jnp.min(jnp.where(at_best, indices, scores.shape[-1] - 1), axis=-1)


def _mask_stop_ids(
    logits: Float[Array, "b v"], stop_ids: Int32[Array, "b n"], early: Bool[Array, " b"]
) -> Float[Array, "b v"]:
    """Set the stop ids' logits to -inf in the rows that may not stop yet (`early`)."""
    rows = jnp.arange(len(stop_ids))[:, None]
    ids = jnp.where(early[:, None] & (stop_ids >= 0), stop_ids, logits.shape[-1])
    return logits.at[rows, ids].set(-jnp.inf, mode="drop")


def _truncate(
    logits: Float[Array, "b v"], top_p: Float32[Array, " b"], top_k: Int32[Array, " b"]
) -> Float[Array, "b v"]:
    """Set logits outside top-k and the nucleus to -inf; the best token always stays.

    Nucleus sampling: Holtzman et al. 2020, arXiv:1904.09751.
    """
    size = logits.shape[-1]
    ordered = jnp.sort(logits, axis=-1, descending=True)
    last = jnp.where(top_k > 0, jnp.minimum(top_k, size), size)[:, None] - 1
    threshold = jnp.take_along_axis(ordered, last, axis=-1)
    ordered = jnp.where(ordered >= threshold, ordered, -jnp.inf)
    mass = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)
    nucleus = jnp.sum(mass < top_p[:, None], axis=-1, keepdims=True)
    # Rounding can make the mass reach 1 before the last token: top_p = 1 must keep all of them.
    nucleus = jnp.where(top_p[:, None] < 1, nucleus, size)
    threshold = jnp.take_along_axis(ordered, jnp.minimum(nucleus, last), axis=-1)
    return jnp.where(logits >= threshold, logits, -jnp.inf)


def _gumbel(
    keys: UInt32[Array, "b 2"], positions: Int32[Array, " b"], like: Float[Array, "b v"]
) -> Float[Array, "b v"]:
    """Gumbel noise of the shape and type of `like`, a function of key and position."""

    def row(key: UInt32[Array, "2"], position: Int32[Array, ""]) -> Float[Array, " v"]:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), position)
        return jax.random.gumbel(key, like.shape[-1:], like.dtype)

    return jax.vmap(row)(keys, positions)
