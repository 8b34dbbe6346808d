"""The compiled programs of the engine: prefill runs of tokens, decode some steps, copy pages.

Few shapes are ever compiled, all of them by `compile_all`. On CPU a request's bits were found not
to depend on its row, its pages, its place in a prefill or the bucket (tests assert what follows
from it), so anything may share a dispatch. Knows the decoder and arrays; knows neither sessions nor
queues.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from eef_jax import sharding
from eef_jax.engine.config import EngineConfig
from eef_jax.engine.sampling import NO_TOKEN, Array, SamplingArrays, sample
from eef_jax.errors import ConfigError
from eef_jax.models.cache import CACHE_AXES, Cache, DecodeView, PrefillView, copy_pages, init_cache
from eef_jax.models.model import Model, merge

COPIES = 4  # pages that one dispatch copies

Leaves = list[jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodeInputs:
    """What a decode dispatch is asked, for each of its rows.

    Attributes:
        tokens: i32[b] the token each row feeds first.
        positions: i32[b] its position; below 0 for rows without one.
        last: i32[b] the last position that a row may feed.
        forced: i32[n, b] ids fed next in place of sampled ones; `NO_TOKEN` where one is sampled.
        table: i32[b, w] the rows' pages.
        draws: how they draw.
    """

    tokens: Array
    positions: Array
    last: Array
    forced: Array
    table: Array
    draws: SamplingArrays


class EngineFunctions:
    """What the programs do, as functions to be compiled: of a model's shape alone.

    Args:
        model: a decoder; its weights may be shapes.
        config: sizes, none of them open.
    """

    def __init__(self, model: Model, config: EngineConfig):
        self._config = config
        self._graphdef = model.graphdef
        self._frozen_def = jax.tree.structure(model.frozen)
        self._adapter_def = jax.tree.structure(model.trainable)

    def empty_prefill(self, width: int) -> PrefillView:
        """A prefill of padding, as numpy arrays to be filled."""
        config = self._config
        return PrefillView(
            positions=np.full(config.prefill_tokens, -1, np.int32),
            row=np.zeros(config.prefill_tokens, np.int32),
            column=np.zeros(config.prefill_tokens, np.int32),
            token=np.full(
                (config.prefill_seqs, config.prefill_chunk), config.prefill_tokens, np.int32
            ),
            table=np.full((config.prefill_seqs, width), config.num_pages, np.int32),
            attention=config.attention,
        )

    def empty_decode(self) -> DecodeInputs:
        """A decode without rows, as numpy arrays to be filled."""
        slots = self._config.max_num_seqs
        return DecodeInputs(
            tokens=np.zeros(slots, np.int32),
            positions=np.full(slots, -1, np.int32),
            last=np.full(slots, -1, np.int32),
            forced=np.full((self._config.decode_steps, slots), NO_TOKEN, np.int32),
            table=np.full((slots, self._config.pages_per_seq), self._config.num_pages, np.int32),
            draws=SamplingArrays.empty(slots),
        )

    def _decoder(self, frozen: Leaves, adapter: Leaves) -> Any:
        return merge(
            self._graphdef,
            jax.tree.unflatten(self._frozen_def, frozen),
            jax.tree.unflatten(self._adapter_def, adapter),
        )

    def prefill_tokens(
        self, cache: Cache, frozen: Leaves, adapter: Leaves, chunks: PrefillView, tokens: jax.Array
    ) -> Cache:
        """See `Programs.prefill`."""
        return self._decoder(frozen, adapter).extend(tokens, chunks, cache)[1]

    def decode_steps(
        self, cache: Cache, frozen: Leaves, adapter: Leaves, steps: DecodeInputs
    ) -> tuple[Cache, jax.Array, jax.Array]:
        """See `Programs.decode`."""
        n = len(steps.forced)

        def going(state: tuple[Any, ...]) -> jax.Array:
            step, _, positions, *_ = state
            return (step < n) & jnp.any(positions >= 0)

        def one(state: tuple[Any, ...]) -> tuple[Any, ...]:
            return self._step(frozen, adapter, steps, state)

        _, _, _, cache, ids, logprobs = jax.lax.while_loop(going, one, _start(cache, steps))
        return cache, ids, logprobs

    def decode_step(
        self, cache: Cache, frozen: Leaves, adapter: Leaves, steps: DecodeInputs
    ) -> tuple[Any, ...]:
        """One step of `decode_steps`, whatever the rows; for accounts of what it takes."""
        return self._step(frozen, adapter, steps, _start(cache, steps))

    def _step(
        self, frozen: Leaves, adapter: Leaves, steps: DecodeInputs, state: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        step, tokens, positions, cache, ids, logprobs = state
        decoder = self._decoder(frozen, adapter)
        rows = DecodeView(positions=positions, table=steps.table, attention=self._config.attention)
        hidden, cache = decoder.extend(tokens, rows, cache)
        drawn, logprob = sample(decoder.logits(hidden), steps.draws, positions + 1)
        forced = steps.forced[step]
        drawn = jnp.where(forced >= 0, forced, drawn)
        live = positions >= 0
        ids = ids.at[step].set(jnp.where(live, drawn, NO_TOKEN))
        logprobs = logprobs.at[step].set(logprob)
        stopped = jnp.any(drawn[:, None] == steps.draws.stops, axis=1) & (forced < 0)
        ended = ~live | stopped | (positions >= steps.last)
        return step + 1, drawn, jnp.where(ended, -1, positions + 1), cache, ids, logprobs


def _start(cache: Cache, steps: DecodeInputs) -> tuple[Any, ...]:
    """What a decode goes through its steps with: step, tokens, positions, cache, results."""
    ids = jnp.full(steps.forced.shape, NO_TOKEN, jnp.int32)
    logprobs = jnp.zeros(steps.forced.shape, jnp.float32)
    return jnp.zeros((), jnp.int32), steps.tokens, steps.positions, cache, ids, logprobs


class Programs(EngineFunctions):
    """The decoder's compiled programs over one cache.

    Args:
        model: decoder and weights.
        config: sizes, none of them open.
    """

    def __init__(self, model: Model, config: EngineConfig):
        super().__init__(model, config)
        self._mesh = _mesh(model)
        # Flattened once: walking a state's Python objects would cost as much as a decode step.
        self._frozen = jax.tree.leaves(model.frozen)
        self._adapter_like = [
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for x in jax.tree.leaves(model.trainable)
        ]
        self._empty = self._empty_cache(model)
        self._cache: Cache | None = None
        self._prefill = self._jit(self.prefill_tokens)
        self._decode = self._jit(self.decode_steps)
        self._copy = self._jit(copy_pages)

    @property
    def cache(self) -> Cache:
        """The pages; made when they are first needed, or needed again."""
        if self._cache is None:
            self._cache = self._empty()
        return self._cache

    @property
    def compile_count(self) -> int:
        """Number of programs compiled so far."""
        functions = (self._empty, self._prefill, self._decode, self._copy)
        return sum(f._cache_size() for f in functions)

    def leaves(self, trainable: nnx.State) -> Leaves:
        """The arrays of an adapter, to be passed to `prefill` and `decode`.

        Raises:
            ConfigError: they are not shaped as those that the model came with.
        """
        leaves, structure = jax.tree.flatten(trainable)
        if structure != self._adapter_def:  # type: ignore[operator]
            raise ConfigError(f"an adapter of {self._adapter_def} was expected, got {structure}")
        return [_placed(*each) for each in zip(leaves, self._adapter_like, strict=True)]

    def compile_all(self, adapter: Leaves) -> None:
        """Compile every program and bucket by running it on nothing."""
        for width in self._config.prefill_buckets:
            self.prefill(
                adapter, self.empty_prefill(width), np.zeros(self._config.prefill_tokens, np.int32)
            )
        self.decode(adapter, self.empty_decode())
        self.copy([])
        jax.block_until_ready(self.cache)

    def prefill(self, adapter: Leaves, chunks: PrefillView, tokens: np.ndarray) -> None:
        """Write runs of tokens i32[t] into the cache."""
        with self._within():
            self._cache = self._prefill(self.cache, self._frozen, adapter, chunks, tokens)

    def decode(self, adapter: Leaves, steps: DecodeInputs) -> tuple[np.ndarray, np.ndarray]:
        """Feed each row's token, draw the next and go on with it, until all rows have ended.

        A row ends with a stop id, or at its `last` position.

        Returns:
            ids i32[n, b] and their log-probabilities f32[n, b]; `NO_TOKEN` after a row has ended.
        """
        with self._within():
            self._cache, ids, logprobs = self._decode(self.cache, self._frozen, adapter, steps)
        return np.asarray(ids), np.asarray(logprobs)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy pages: (source, target) each."""
        for start in range(0, max(len(pairs), 1), COPIES):
            source = np.zeros(COPIES, np.int32)
            target = np.full(COPIES, self._config.num_pages, np.int32)
            for i, (a, b) in enumerate(pairs[start : start + COPIES]):
                source[i], target[i] = a, b
            with self._within():
                self._cache = self._copy(self.cache, source, target)

    def clear(self) -> None:
        """Let the cache and what is in it go."""
        self._cache = None

    def _empty_cache(self, model: Model) -> Any:
        """What makes an empty cache, each device's part on it."""
        make = functools.partial(
            init_cache,
            model.config,
            num_pages=self._config.num_pages,
            page_size=self._config.page_size,
            dtype=model.decoder.dtype,
            attention=self._config.attention,
        )
        mesh = self._mesh
        if mesh is None:
            return jax.jit(make)
        lies = jax.tree.map(
            lambda x: jax.sharding.NamedSharding(
                mesh, sharding.partition_spec(CACHE_AXES, x.shape, mesh)
            ),
            jax.eval_shape(make),
        )
        return jax.jit(make, out_shardings=lies)

    def _jit(self, function: Callable[..., Any]) -> Any:
        # A fresh function object: jit's cache, and so `compile_count`, is this engine's own.
        return jax.jit(functools.partial(function), donate_argnames="cache")

    def _within(self) -> contextlib.AbstractContextManager[Any]:
        """The mesh, which the decoder constrains its activations to."""
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)


def _placed(leaf: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """An array of an adapter, where the programs expect it."""
    if (leaf.shape, leaf.dtype) != (like.shape, like.dtype):
        raise ConfigError(
            f"an adapter with {like.dtype}{like.shape} was expected, got {leaf.dtype}{leaf.shape}: "
            "one of another rank or dtype needs an engine of its own"
        )
    # What lies right stays as it is: to JAX, an array that was put somewhere is another kind.
    return leaf if leaf.sharding == like.sharding else jax.device_put(leaf, like.sharding)


def _mesh(model: Model) -> Mesh | None:
    """The mesh the weights lie on, if they lie on one of several devices."""
    for leaf in jax.tree.leaves((model.frozen, model.trainable)):
        lies = getattr(leaf, "sharding", None)
        if isinstance(lies, jax.sharding.NamedSharding) and isinstance(lies.mesh, Mesh):
            return lies.mesh
    return None
