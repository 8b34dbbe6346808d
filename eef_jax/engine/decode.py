"""The compiled programs of the engine: prefill chunks, decode one token, copy a prefix.

Few shapes are ever compiled: one prefill and one decode for each bucket of context length. On CPU a
request's bits were found not to depend on its row, its slot, its chunks or the bucket (tests assert
what follows from it), so anything may share a dispatch. Knows the decoder and arrays; knows neither
sessions nor queues.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from eef_jax.engine.sampling import sample
from eef_jax.models.base import Model, merge
from eef_jax.models.cache import BLOCK, Blocks, Cache, init_cache


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Sizes of the cache and of the dispatches.

    Attributes:
        slots: conversations resident at once, and rows of a decode step.
        max_context: tokens a conversation can hold.
        rows: rows of a prefill; one conversation may fill several of them.
        chunk: tokens of such a row.
        bucket: a dispatch looks at a multiple of so many cache positions.
    """

    slots: int = 64
    max_context: int = 1024
    rows: int = 16
    chunk: int = 32
    bucket: int = 256

    def length(self, end: int) -> int:
        """The shortest bucket that holds positions below `end`."""
        return min(-(-end // self.bucket) * self.bucket, self.max_context)


class Programs:
    """The decoder's compiled programs over one cache.

    Attributes:
        cache: keys and values of all slots.
    """

    def __init__(self, model: Model, shapes: Shapes):
        self._shapes = shapes
        self._graphdef = model.graphdef
        self._config = model.config
        self._dtype = model.decoder.dtype
        self._leaves: list[jax.Array] = []
        self._treedef: Any = None
        self.load(model.frozen, model.trainable)
        self.cache = self._empty_cache()
        self._prefill = self._jit(self._prefill_chunks, "length")
        self._decode = self._jit(self._decode_token, "length")
        self._copy = self._jit(_copy_prefix, "length")

    @property
    def compiles(self) -> int:
        """Number of programs compiled so far."""
        return sum(f._cache_size() for f in (self._prefill, self._decode, self._copy))

    def load(self, frozen: nnx.State, trainable: nnx.State) -> None:
        """Use these weights from now on; equal shapes compile nothing."""
        # Flattened once: walking a state's Python objects would cost as much as a decode step.
        self._leaves, self._treedef = jax.tree.flatten((frozen, trainable))

    def prefill(
        self, tokens: np.ndarray, positions: np.ndarray, rows: np.ndarray, *, length: int
    ) -> None:
        """Write chunks into the cache.

        Args:
            tokens: i32[b, c].
            positions: i32[b, c], below 0 for padding.
            rows: i32[b] slot of each chunk; a slot may have several, at different positions.
            length: bucket that holds all positions.
        """
        self.cache = self._prefill(self._leaves, self.cache, tokens, positions, rows, length=length)

    def decode(
        self,
        tokens: np.ndarray,
        positions: np.ndarray,
        keys: np.ndarray,
        temperature: np.ndarray,
        top_p: np.ndarray,
        *,
        length: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write one token a slot and draw the next.

        Args:
            tokens: i32[b], one for each slot.
            positions: i32[b], below 0 where a slot has no token.
            keys: u32[b, 2].
            temperature: f32[b].
            top_p: f32[b].
            length: bucket that holds all positions.

        Returns:
            ids i32[b] and their log-probabilities f32[b].
        """
        self.cache, ids, logprobs = self._decode(
            self._leaves,
            self.cache,
            tokens,
            positions,
            keys,
            temperature,
            top_p,
            length=length,
        )
        return np.asarray(ids), np.asarray(logprobs)

    def copy(self, source: int, target: int, *, length: int) -> None:
        """Copy the first `length` (a bucket) positions of one slot to another."""
        self.cache = self._copy(self.cache, np.int32(source), np.int32(target), length=length)

    def _empty_cache(self) -> Cache:
        make = functools.partial(
            init_cache,
            self._config,
            slots=self._shapes.slots,
            max_context=self._shapes.max_context,
            dtype=self._dtype,
        )
        # Weights that lie on a mesh want the cache there too (replicated).
        sharding = getattr(self._leaves[0], "sharding", None)
        if isinstance(sharding, jax.sharding.NamedSharding):
            place = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
            return jax.jit(make, out_shardings=place)()
        return make()

    def _jit(self, function: Callable[..., Any], *static: str) -> Any:
        # A fresh function object: jit's cache, and so `compiles`, is this engine's own.
        own = functools.partial(function)
        return jax.jit(own, static_argnames=static, donate_argnames="cache")

    def _prefill_chunks(
        self,
        leaves: list[jax.Array],
        cache: Cache,
        tokens: jax.Array,
        positions: jax.Array,
        rows: jax.Array,
        *,
        length: int,
    ) -> Cache:
        decoder = merge(self._graphdef, *jax.tree.unflatten(self._treedef, leaves))
        _, cache = decoder.extend(tokens, positions, rows, cache, length=length)
        return cache

    def _decode_token(
        self,
        leaves: list[jax.Array],
        cache: Cache,
        tokens: jax.Array,
        positions: jax.Array,
        keys: jax.Array,
        temperature: jax.Array,
        top_p: jax.Array,
        *,
        length: int,
    ) -> tuple[Cache, jax.Array, jax.Array]:
        decoder = merge(self._graphdef, *jax.tree.unflatten(self._treedef, leaves))
        # All slots in order: the cache is then read in place, at half the time of gathering rows.
        hidden, cache = decoder.extend(
            tokens[:, None], positions[:, None], None, cache, length=length
        )
        logits = decoder.logits(hidden[:, 0])
        return cache, *sample(logits, keys, positions + 1, temperature, top_p)


def _copy_prefix(cache: Cache, source: jax.Array, target: jax.Array, *, length: int) -> Cache:
    def copy(blocks: Blocks) -> Blocks:
        needed = -(-length // BLOCK)
        copied = [block.at[target].set(block[source]) for block in blocks[:needed]]
        return (*copied, *blocks[needed:])

    return tuple((copy(keys), copy(values)) for keys, values in cache)
