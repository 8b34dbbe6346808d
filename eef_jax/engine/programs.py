"""The engine's compiled programs over one KV cache: prefill, decode, copy pages.

All shapes are compiled at the start, by `compile_all`; serving compiles nothing.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, Shaped

from eef_jax import sharding
from eef_jax.config.sections import EngineConfig
from eef_jax.engine.config import prefill_buckets, resolve_config
from eef_jax.engine.functions import EngineFunctions, Leaves
from eef_jax.engine.inputs import DecodeInputs, empty_prefill
from eef_jax.errors import ConfigError
from eef_jax.models.cache import CACHE_AXES, Cache, PrefillView, copy_pages, init_cache
from eef_jax.models.model import Model

PAGES_PER_COPY = 4  # of one copy dispatch


class Programs:
    """A decoder's compiled programs and the cache that they update.

    On CPU in float32 a request's bits were found not to depend on its row, its pages, its place in
    a prefill or the bucket (tests assert what follows from it), so any requests can share a
    dispatch.

    Args:
        model: decoder and weights.
        config: sizes; open ones are resolved by the memory of the model's device.

    Attributes:
        config: sizes, all resolved.
        vocab_size: number of token ids that the model has.
    """

    def __init__(self, model: Model, config: EngineConfig):
        self.config = resolve_config(
            config, model.config, dtype=str(model.decoder.dtype), device=_device(model)
        )
        self.vocab_size = model.config.vocab_size
        self._mesh = _mesh(model)
        # Flattened once: walking a state's Python objects would cost as much as a decode step.
        self._frozen = jax.tree.leaves(model.frozen)
        leaves, adapter_def = jax.tree.flatten(model.trainable)
        self._adapter_def: Any = adapter_def
        self._adapter_like = [
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves
        ]
        self._cache: Cache | None = None
        functions = EngineFunctions(model, self.config)
        self._empty = self._jit_empty_cache(model)
        self._prefill = _jit(functions.prefill)
        self._decode = _jit(functions.decode)
        self._copy = _jit(copy_pages)

    @property
    def cache(self) -> Cache:
        """The pages; allocated on first use, and again after `free_cache`."""
        if self._cache is None:
            self._cache = self._empty()
        return self._cache

    @property
    def holds_cache(self) -> bool:
        """Whether the cache is allocated."""
        return self._cache is not None

    @property
    def compile_count(self) -> int:
        """Number of programs compiled so far."""
        functions = (self._empty, self._prefill, self._decode, self._copy)
        return sum(f._cache_size() for f in functions)

    def adapter_leaves(self, trainable: nnx.State) -> Leaves:
        """Return the arrays of an adapter, placed as `prefill` and `decode` expect them.

        Raises:
            ConfigError: their structure, shapes or types differ from the model's own adapter.
        """
        leaves, structure = jax.tree.flatten(trainable)
        if structure != self._adapter_def:
            raise ConfigError(f"an adapter of {self._adapter_def} was expected, got {structure}")
        return [_placed(*each) for each in zip(leaves, self._adapter_like, strict=True)]

    def compile_all(self, adapter: Leaves) -> None:
        """Compile every program and bucket, by warm-up on empty inputs."""
        for width in prefill_buckets(self.config):
            self.prefill(adapter, *empty_prefill(self.config, width))
        self.decode(adapter, DecodeInputs.empty(self.config))
        self.copy([])
        jax.block_until_ready(self.cache)

    def prefill(
        self, adapter: Leaves, chunks: PrefillView, tokens: Int32[np.ndarray, " t"]
    ) -> None:
        """Write the entries of the tokens into the cache."""
        with self._mesh_context():
            self._cache = self._prefill(self.cache, self._frozen, adapter, chunks, tokens)

    def decode(
        self, adapter: Leaves, inputs: DecodeInputs
    ) -> tuple[Int32[np.ndarray, "n b"], Float32[np.ndarray, "n b"]]:
        """Decode up to n steps for b rows (see `EngineFunctions.decode`).

        Returns:
            ids (`NO_TOKEN` after a row has ended) and their log-probabilities.
        """
        with self._mesh_context():
            self._cache, ids, logprobs = self._decode(self.cache, self._frozen, adapter, inputs)
        return np.asarray(ids), np.asarray(logprobs)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy pages, given as (source, target) pairs."""
        for start in range(0, max(len(pairs), 1), PAGES_PER_COPY):
            source = np.zeros(PAGES_PER_COPY, np.int32)
            target = np.full(PAGES_PER_COPY, self.config.num_pages, np.int32)
            for i, (a, b) in enumerate(pairs[start : start + PAGES_PER_COPY]):
                source[i], target[i] = a, b
            with self._mesh_context():
                self._cache = self._copy(self.cache, source, target)

    def free_cache(self) -> None:
        """Free the cache's memory; its contents are lost."""
        self._cache = None

    def _jit_empty_cache(self, model: Model) -> Any:
        """A function that allocates the cache, each device's part on that device."""
        make = functools.partial(
            init_cache,
            model.config,
            num_pages=self.config.num_pages,
            page_size=self.config.page_size,
            dtype=model.decoder.dtype,
            attention=self.config.attention,
        )
        mesh = self._mesh
        if mesh is None:
            return jax.jit(make)
        shardings = jax.tree.map(
            lambda x: jax.sharding.NamedSharding(
                mesh, sharding.partition_spec(CACHE_AXES, x.shape, mesh)
            ),
            jax.eval_shape(make),
        )
        return jax.jit(make, out_shardings=shardings)

    def _mesh_context(self) -> contextlib.AbstractContextManager[Any]:
        """The mesh that the decoder's sharding constraints refer to."""
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)


def _jit(function: Callable[..., Any]) -> Any:
    # A fresh function object: jit shares its cache between equal functions, and `compile_count`
    # counts this engine's programs only.
    return jax.jit(functools.partial(function), donate_argnames="cache")


def _placed(leaf: Shaped[Array, "*x"], like: jax.ShapeDtypeStruct) -> Shaped[Array, "*x"]:
    """An adapter's array with the expected sharding."""
    if (leaf.shape, leaf.dtype) != (like.shape, like.dtype):
        raise ConfigError(
            f"an adapter with {like.dtype}{like.shape} was expected, got {leaf.dtype}{leaf.shape}: "
            "an adapter of another rank or dtype needs its own engine"
        )
    # An array with the right sharding is passed as it is: `device_put` would make it a committed
    # array, and jit compiles a program anew for those.
    return leaf if leaf.sharding == like.sharding else jax.device_put(leaf, like.sharding)


def _device(model: Model) -> jax.Device:
    leaf = jax.tree.leaves((model.frozen, model.trainable))[0]
    return next(iter(leaf.devices()))


def _mesh(model: Model) -> Mesh | None:
    """The mesh that the weights are placed on; None on a single device without one."""
    for leaf in jax.tree.leaves((model.frozen, model.trainable)):
        placement = getattr(leaf, "sharding", None)
        if isinstance(placement, jax.sharding.NamedSharding) and isinstance(placement.mesh, Mesh):
            return placement.mesh
    return None
