"""The paged key/value cache of sampling: a pool of pages per layer, and views of new tokens on it.

A page holds keys and values of consecutive positions of a sequence; the engine decides which. A
cache is a tree of arrays whose first axis is the page.

Legend: t new tokens, b sequences, c new tokens of a sequence, w pages of a sequence, p pages,
s entries of a page, k kv heads, h head dim, n query heads.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Int32

from eef_jax import kernels
from eef_jax.models.config import ModelConfig

AnyArray = Any  # jax.Array inside a program, np.ndarray in its arguments

# Logical axes of the keys and of the values of a layer (see `eef_jax.sharding`).
CACHE_AXES = (None, "kv_heads", None, None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """Keys and values of one layer.

    Attributes:
        keys: [p, k, s, h], or [p, k, h, s] if `keys_transposed`.
        values: of the same pages.
        keys_transposed: layout of the keys, which the kernel that reads them decides (static).
    """

    keys: Float[Array, "p k _ _"]
    values: Float[Array, "p k s h"]
    keys_transposed: bool = dataclasses.field(metadata={"static": True})

    def write_tokens(
        self,
        k: Float[Array, "t k h"],
        v: Float[Array, "t k h"],
        page: Int[Array, " t"],
        entry: Int[Array, " t"],
    ) -> "LayerCache":
        """Write keys and values of single tokens.

        Args:
            k: keys.
            v: values.
            page: page of each token; p drops the token.
            entry: entry of each token in its page.
        """
        keys, values = self.keys, self.values
        at = (page, slice(None), entry)
        keys_at = (page, slice(None), slice(None), entry) if self.keys_transposed else at
        return dataclasses.replace(
            self,
            keys=keys.at[keys_at].set(k.astype(keys.dtype), mode="drop"),
            values=values.at[at].set(v.astype(values.dtype), mode="drop"),
        )

    def write_pages(
        self,
        k: Float[Array, "n s k h"],
        v: Float[Array, "n s k h"],
        page: Int[Array, " n"],
        new: Bool[Array, "n s"],
    ) -> "LayerCache":
        """Write whole pages, of which entries that are not new keep their value.

        Args:
            k: keys.
            v: values.
            page: the pages; p drops a page.
            new: entries that are written.
        """
        # Scattering single entries would make XLA for TPUs copy the whole cache twice per layer.
        old = jnp.minimum(page, len(self.values) - 1)

        def updated(
            pages: Float[Array, "p k _ _"], x: Float[Array, "n s k h"], transposed: bool
        ) -> Float[Array, "p k _ _"]:
            x, mask = x.swapaxes(1, 2).astype(pages.dtype), new[:, None, :, None]
            if transposed:
                x, mask = x.swapaxes(2, 3), mask.swapaxes(2, 3)
            return pages.at[page].set(jnp.where(mask, x, pages[old]), mode="drop")

        return dataclasses.replace(
            self,
            keys=updated(self.keys, k, self.keys_transposed),
            values=updated(self.values, v, False),
        )


Cache = tuple[LayerCache, ...]


def init_cache(
    config: ModelConfig, *, num_pages: int, page_size: int, dtype: DTypeLike, attention: str
) -> Cache:
    """Make an empty cache.

    Args:
        config: shape of the decoder.
        num_pages: number of pages.
        page_size: positions per page.
        dtype: type of the entries; the compute type of the model is lossless.
        attention: name in `kernels.PAGED_IMPLEMENTATIONS` of the kernel that will read it.
    """
    k, h = config.n_kv_heads, config.head_dim
    transposed = kernels.paged_attention(attention).keys_transposed
    shape = (num_pages, k, page_size, h)
    keys_shape = (num_pages, k, h, page_size) if transposed else shape

    def layer() -> LayerCache:
        return LayerCache(
            keys=jnp.zeros(keys_shape, dtype),
            values=jnp.zeros(shape, dtype),
            keys_transposed=transposed,
        )

    return tuple(layer() for _ in range(config.n_layers))


def page_bytes(config: ModelConfig, *, page_size: int, dtype: DTypeLike) -> int:
    """Size of one page over all layers, in bytes."""
    entry = 2 * config.n_layers * config.n_kv_heads * config.head_dim
    return entry * page_size * jnp.dtype(dtype).itemsize


def copy_pages(cache: Cache, source: Int[AnyArray, " n"], target: Int[AnyArray, " n"]) -> Cache:
    """Copy pages `source` to pages `target`; a target outside the cache is dropped."""
    return jax.tree.map(lambda x: x.at[target].set(x[source], mode="drop"), cache)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodeView:
    """A view of one new token per sequence.

    Attributes:
        positions: position of the token; negative for a row without a token.
        table: pages of each sequence in order; p for no page.
        attention: name in `kernels.PAGED_IMPLEMENTATIONS` (static).
    """

    positions: Int32[AnyArray, " b"]
    table: Int32[AnyArray, "b w"]
    attention: str = dataclasses.field(metadata={"static": True})

    def write(
        self, layer: LayerCache, k: Float[Array, "b k h"], v: Float[Array, "b k h"]
    ) -> LayerCache:
        """Write the keys and values of the new tokens to a layer's cache."""
        pages, _, s, _ = layer.values.shape
        column = jnp.maximum(self.positions, 0) // s
        page = jnp.take_along_axis(self.table, column[:, None], axis=1)[:, 0]
        page = jnp.where(self.positions < 0, pages, page)
        return layer.write_tokens(k, v, page, self.positions % s)

    def attend(
        self, q: Float[Array, "b n h"], layer: LayerCache, spec: kernels.AttentionSpec
    ) -> Float[Array, "b n h"]:
        """Attention of queries to the pages of their sequences."""
        kernel = _kernel(self.attention, layer)
        return kernel.decode(q, layer.keys, layer.values, self.table, self.positions, spec)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrefillView:
    """A view of several new tokens per sequence, packed without padding between sequences.

    Attributes:
        positions: position of each token; negative for padding.
        row: sequence of each token.
        column: index of each token among the new tokens of its sequence.
        token: the inverse: index in [0, t) of each new token; t for no token.
        table: pages of each sequence in order; p for no page.
        attention: name in `kernels.PAGED_IMPLEMENTATIONS` (static).
    """

    positions: Int32[AnyArray, " t"]
    row: Int32[AnyArray, " t"]
    column: Int32[AnyArray, " t"]
    token: Int32[AnyArray, "b c"]
    table: Int32[AnyArray, "b w"]
    attention: str = dataclasses.field(metadata={"static": True})

    def write(
        self, layer: LayerCache, k: Float[Array, "t k h"], v: Float[Array, "t k h"]
    ) -> LayerCache:
        """Write the keys and values of the new tokens to a layer's cache."""
        pages, _, s, _ = layer.values.shape
        tokens, (_, c), w = len(self.positions), self.token.shape, self.table.shape[1]
        # The token that each entry is written by. Two runs of one sequence may share a page.
        page = self.table[self.row, jnp.maximum(self.positions, 0) // s]
        page = jnp.where(self.positions < 0, pages, page)
        owner = jnp.full((pages, s), tokens, jnp.int32)
        owner = owner.at[page, self.positions % s].set(jnp.arange(tokens), mode="drop")
        # The pages that c consecutive tokens can touch.
        first = jnp.maximum(self.positions[jnp.minimum(self.token[:, 0], tokens - 1)], 0) // s
        column = first[:, None] + jnp.arange((c + s - 2) // s + 1)[None]
        page = jnp.take_along_axis(self.table, jnp.minimum(column, w - 1), axis=1).reshape(-1)
        token = owner.at[page].get(mode="fill", fill_value=tokens)
        new = token < tokens
        token = jnp.where(new, token, 0)
        return layer.write_pages(k[token], v[token], jnp.where(new.any(axis=1), page, pages), new)

    def attend(
        self, q: Float[Array, "t n h"], layer: LayerCache, spec: kernels.AttentionSpec
    ) -> Float[Array, "t n h"]:
        """Attention of queries to the pages of their sequences."""
        valid = self.token < len(self.positions)
        token = jnp.where(valid, self.token, 0)
        positions = jnp.where(valid, self.positions[token], -1)
        rows = q[token].swapaxes(1, 2)  # [b, n, c, h]
        kernel = _kernel(self.attention, layer)
        out = kernel.prefill(rows, layer.keys, layer.values, self.table, positions, spec)
        return out[self.row, :, self.column]


CacheView = DecodeView | PrefillView


def _kernel(name: str, layer: LayerCache) -> kernels.PagedAttention:
    kernel = kernels.paged_attention(name)
    assert layer.keys_transposed == kernel.keys_transposed, (
        f"this cache was made for another kernel than {name}"
    )
    return kernel
