"""A model in three parts (static structure, frozen and trainable parameters), and its hash."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from eef_jax.config.sections import LoraConfig
from eef_jax.models import stacking
from eef_jax.models.config import ModelConfig
from eef_jax.models.decoder import Decoder

_CHUNK_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder split into static structure, frozen parameters and trainable parameters.

    Attributes:
        config: shape of the decoder.
        lora: the adapter; None means that every parameter is trainable.
        graphdef: static structure; hashable.
        frozen: parameters that never change; empty without an adapter.
        trainable: parameters that training changes: the adapter, or all of them.
    """

    config: ModelConfig
    lora: LoraConfig | None
    graphdef: nnx.GraphDef
    frozen: nnx.State
    trainable: nnx.State

    @property
    def decoder(self) -> Decoder:
        """The decoder with this model's parameters."""
        return merge(self.graphdef, self.frozen, self.trainable)


def merge(graphdef: nnx.GraphDef, frozen: nnx.State, trainable: nnx.State) -> Decoder:
    """Merge the parts of a model into a decoder.

    Works inside `jax.jit`: pass the states as arguments and close over the graphdef.
    """
    return nnx.merge(graphdef, frozen, trainable)


def content_hash(state: nnx.State) -> str:
    """SHA-256 over the paths, types, shapes and bytes of a state, as a hex string.

    A checkpoint names its base by this hash instead of storing the frozen weights. Equal weights
    give equal hashes on any mesh and in any layout of the layers. On a mesh over several processes,
    all of them must call this.
    """
    digest = hashlib.sha256()
    # By layer and in the order of names, so that stacked layers hash like separate ones.
    named = stacking.by_layer(state)
    for path in sorted(named, key=str):
        variable, row = named[path]
        value = variable.get_value() if row is None else variable.get_value()[row]
        digest.update(f"{path} {value.dtype} {value.shape}\n".encode())
        for chunk in _host_chunks(value):
            digest.update(np.ascontiguousarray(chunk).tobytes())
    return digest.hexdigest()


def _host_chunks(array: Shaped[Array, "..."]) -> Iterator[Shaped[np.ndarray, "..."]]:
    """An array's values on the host, in chunks along its first axis."""
    if array.is_fully_addressable or array.is_fully_replicated:
        # Fetched without a program, so that one process alone can hash its own arrays.
        yield np.asarray(jax.device_get(array))
    else:
        yield from fetch_chunks(array)


def fetch_chunks(
    array: Shaped[Array, "n ..."], chunk_bytes: int = _CHUNK_BYTES
) -> Iterator[Shaped[np.ndarray, "_ ..."]]:
    """Fetch the values of an array that is sharded over processes.

    Args:
        array: on a mesh; every process calls this.
        chunk_bytes: bytes that are replicated on the devices at a time.

    Yields:
        The values in chunks along the first axis.
    """
    sharding = array.sharding
    assert isinstance(sharding, NamedSharding), f"an array without a mesh: {sharding}"
    take_rows = _replicated_slice(NamedSharding(sharding.mesh, PartitionSpec()))
    rows = max(1, chunk_bytes * array.shape[0] // array.nbytes)
    for start in range(0, array.shape[0], rows):
        yield np.asarray(take_rows(array, start, min(rows, array.shape[0] - start)))


@functools.cache
def _replicated_slice(
    sharding: NamedSharding,
) -> Callable[[Shaped[Array, "n ..."], int, int], Shaped[Array, "_ ..."]]:
    """A jitted (array, start, size) -> rows of the array with this sharding."""
    return jax.jit(jax.lax.dynamic_slice_in_dim, static_argnums=2, out_shardings=sharding)
