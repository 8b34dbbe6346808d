"""The key/value cache of sampling: for each layer and each run of `BLOCK` positions one array.

Knows slots and positions only; which conversation sits in which slot is the engine's affair. A
cache is a plain tree of arrays whose first axis is the slot, so `jax.tree.map` copies or shards it.

Legend: b batch, c new tokens, s cache slots, k kv heads, h head dim.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from eef_jax.models.base import ModelConfig

# Positions in one array. A step reads whole arrays up to its length: cutting a part out of a large
# one would copy it first (XLA on CPU, 64 slots, 512 of 1024 positions: 6-15 ms a layer, not 2).
BLOCK = 128

# [s, k, block, h] each: heads before positions, as a batched product reads it in place.
Blocks = tuple[jax.Array, ...]
Layer = tuple[Blocks, Blocks]
Cache = tuple[Layer, ...]


def init_cache(
    config: ModelConfig, *, slots: int, max_context: int, dtype: DTypeLike = "float32"
) -> Cache:
    """Make an empty cache.

    Args:
        config: the model's shape.
        slots: number of conversations held at once.
        max_context: positions in each slot.
        dtype: type of the entries; the model's compute type loses nothing.
    """
    sizes = [min(BLOCK, max_context - start) for start in range(0, max_context, BLOCK)]

    def empty() -> Blocks:
        return tuple(
            jnp.zeros((slots, config.n_kv_heads, size, config.head_dim), dtype) for size in sizes
        )

    return tuple((empty(), empty()) for _ in range(config.n_layers))


def copy_slots(cache: Cache, source: jax.Array, target: jax.Array) -> Cache:
    """Copy whole slots i32[n] onto others i32[n]; a target outside the cache copies nothing."""
    return jax.tree.map(lambda x: x.at[target].set(x[source], mode="drop"), cache)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where new tokens go.

    Attributes:
        rows: i32[b] slot of each batch row; None for all slots in order.
        positions: i32[b, c]; below 0 for padding.
        length: number of positions looked at (static).
    """

    rows: jax.Array | None
    positions: jax.Array
    length: int

    def write(self, blocks: Blocks, new: jax.Array) -> Blocks:
        """Put new entries [b, c, k, h] where they belong; padding is dropped."""
        slots = jnp.arange(new.shape[0]) if self.rows is None else self.rows
        written = []
        for start, block in self._seen(blocks):
            inside = (self.positions >= start) & (self.positions < start + block.shape[2])
            at = jnp.where(inside, self.positions - start, block.shape[2])
            index = (slots[:, None], slice(None), at)
            written.append(block.at[index].set(new.astype(block.dtype), mode="drop"))
        return (*written, *blocks[len(written) :])

    def read(self, blocks: Blocks) -> Blocks:
        """The entries [b, k, block, h] of the first `length` positions (rounded up to blocks)."""
        seen = [block for _, block in self._seen(blocks)]
        return tuple(seen if self.rows is None else [block[self.rows] for block in seen])

    def _seen(self, blocks: Blocks) -> Iterator[tuple[int, jax.Array]]:
        return zip(range(0, self.length, BLOCK), blocks, strict=False)
