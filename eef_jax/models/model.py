"""A model in three parts (static structure, frozen and trainable parameters), and its hash."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from eef_jax.models import stacking
from eef_jax.models.config import LoraConfig, ModelConfig
from eef_jax.models.decoder import Decoder

_PIECE = 256 << 20  # bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder taken apart: what is trained, what is not, and how to put them together.

    Attributes:
        config: the shape.
        lora: the adapter's configuration; None means that every parameter is trained.
        graphdef: static structure, hashable.
        frozen: parameters that never change (empty without an adapter).
        trainable: parameters that training changes: the adapter, or everything.
    """

    config: ModelConfig
    lora: LoraConfig | None
    graphdef: nnx.GraphDef
    frozen: nnx.State
    trainable: nnx.State

    @property
    def decoder(self) -> Decoder:
        """The decoder with the parameters this model holds."""
        return merge(self.graphdef, self.frozen, self.trainable)


def merge(graphdef: nnx.GraphDef, frozen: nnx.State, trainable: nnx.State) -> Decoder:
    """Put a decoder together; works inside `jax.jit` (pass the states, close over the graphdef)."""
    return nnx.merge(graphdef, frozen, trainable)


def content_hash(state: nnx.State) -> str:
    """SHA-256 over the paths, types, shapes and bytes of a state, as a hex string.

    A checkpoint names the frozen weights it belongs to by it instead of storing them. Equal weights
    give equal hashes on any mesh and in any layout of the layers; where a mesh spans processes, all
    of them call this.
    """
    digest = hashlib.sha256()
    named = stacking.by_layer(state)
    for path in sorted(named, key=str):
        variable, row = named[path]
        value = variable.get_value() if row is None else variable.get_value()[row]
        digest.update(f"{path} {value.dtype} {value.shape}\n".encode())
        for piece in _pieces(value):
            digest.update(np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()


def _pieces(array: jax.Array) -> Iterator[np.ndarray]:
    """An array's values on the host, along its first axis.

    What lies in other processes comes over the devices, so no more than `_PIECE` bytes at a time.
    """
    if array.is_fully_addressable or array.is_fully_replicated:
        yield np.asarray(jax.device_get(array))
    else:
        yield from fetch_chunks(array)


def fetch_chunks(array: jax.Array, piece: int = _PIECE) -> Iterator[np.ndarray]:
    """An array's values, fetched from all devices in pieces of so many bytes."""
    lies = array.sharding
    assert isinstance(lies, NamedSharding), f"an array over processes without a mesh: {lies}"
    cut = _cutter(NamedSharding(lies.mesh, PartitionSpec()))
    size = max(1, piece * array.shape[0] // array.nbytes)
    for start in range(0, array.shape[0], size):
        yield np.asarray(cut(array, start, min(size, array.shape[0] - start)))


@functools.cache
def _cutter(lies: NamedSharding) -> Callable[[jax.Array, int, int], jax.Array]:
    """Cuts (array, start, size) along the first axis; the piece lies on all devices."""
    return jax.jit(jax.lax.dynamic_slice_in_dim, static_argnums=2, out_shardings=lies)
