"""Filling a decoder's parameters on the devices, from any source of values.

Every device asks the source for its own part, so that no process holds a whole model twice.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from eef_jax import sharding
from eef_jax.models import stacking
from eef_jax.models.decoder import Decoder
from eef_jax.models.families import hf_names
from eef_jax.models.quantize import QuantizedWeight

Leaf = nnx.Variable | QuantizedWeight
# Parameters as files have them: a quantized weight is one leaf.
Leaves = dict[hf_names.ParamPath, Leaf]
# Makes a part of a parameter: one slice per dimension -> values.
Source = Callable[[tuple[slice, ...]], Float[np.ndarray, "..."]]
# The source of one layer's parameter, by its path and the leaf that it becomes (a part of).
SourceOf = Callable[[hf_names.ParamPath, Leaf], Source]


def parameter_leaves(decoder: Decoder) -> Leaves:
    """The parameters of a decoder by path, adapters included."""
    leaves: Leaves = {}
    for path, variable in nnx.to_flat_state(nnx.state(decoder, nnx.Param)):
        owner = hf_names.submodule(decoder, path[:-1])
        # Files hold one tensor for its codes and scales.
        if isinstance(owner, QuantizedWeight):
            leaves[path[:-1]] = owner
        else:
            leaves[path] = variable
    return leaves


def unstacked_shapes(leaves: Leaves) -> dict[hf_names.ParamPath, jax.ShapeDtypeStruct]:
    """Shape and type of each parameter under its layer's own path, in either layout."""
    return {
        name: jax.ShapeDtypeStruct(_own_shape(leaf), _variable(leaf).dtype)
        for path, leaf in leaves.items()
        for name in stacking.layer_paths(path, _variable(leaf))
    }


def stacked_source(path: hf_names.ParamPath, leaf: Leaf, source_of: SourceOf) -> Source:
    """The source of a leaf's values; a stack reads those of each of its layers.

    Args:
        path: path of the leaf in the decoder.
        leaf: the parameter, or the quantized weight.
        source_of: gives the source of one layer's parameter by its own path.
    """
    sources = [source_of(name, leaf) for name in stacking.layer_paths(path, _variable(leaf))]
    if not _is_stack(leaf):
        return sources[0]

    def part(index: tuple[slice, ...]) -> Float[np.ndarray, "layers ..."]:
        return np.stack([source(index[1:]) for source in sources[index[0]]])

    return part


def _variable(leaf: Leaf) -> nnx.Variable:
    return leaf.codes if isinstance(leaf, QuantizedWeight) else leaf


def _is_stack(leaf: Leaf) -> bool:
    return "layers" in _variable(leaf).get_metadata()


def _own_shape(leaf: Leaf) -> tuple[int, ...]:
    """Shape of one layer's parameter."""
    shape = tuple(leaf.shape)
    return shape[1:] if isinstance(leaf, nnx.Variable) and _is_stack(leaf) else shape


def fill(
    leaves: Leaves, source_of: SourceOf, mesh: Mesh | None
) -> dict[hf_names.ParamPath, nnx.Variable]:
    """Fill parameters one after the other.

    Args:
        leaves: the parameters, in any layout.
        source_of: gives the source of one layer's parameter by its own path.
        mesh: devices that the values are sharded over; None for the default device.

    Returns:
        The filled variables by their paths.
    """
    filled: dict[hf_names.ParamPath, nnx.Variable] = {}
    for path, leaf in leaves.items():
        filled |= place_leaf(path, leaf, stacked_source(path, leaf, source_of), mesh)
    return filled


def place_leaf(
    path: hf_names.ParamPath, leaf: Leaf, source: Source, mesh: Mesh | None
) -> dict[hf_names.ParamPath, nnx.Variable]:
    """Fill a leaf: every device gets its part from `source`.

    A quantized weight is encoded as a whole, on the host, since its scales span several parts.

    Args:
        path: path of the leaf in the decoder.
        leaf: the parameter, or the quantized weight.
        source: makes any part of its float values.
        mesh: devices that it is sharded over; None for the default device.

    Returns:
        The filled variables by their paths: one, or a quantized weight's.
    """
    if isinstance(leaf, QuantizedWeight):
        parts = _encoded(leaf, source)
        return {
            (*path, name): _put(getattr(leaf, name), value.__getitem__, mesh)
            for name, value in parts.items()
        }
    return {path: _put(leaf, source, mesh)}


def _encoded(leaf: QuantizedWeight, source: Source) -> dict[str, Shaped[np.ndarray, "..."]]:
    whole = (slice(None), slice(None))
    if not _is_stack(leaf):
        return leaf.encode(source(whole))
    layers = range(leaf.codes.shape[0])
    each = [leaf.encode(source((slice(i, i + 1), *whole))[0]) for i in layers]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def _put(variable: nnx.Variable, source: Source, mesh: Mesh | None) -> nnx.Variable:
    def part(index: Any) -> Shaped[np.ndarray, "..."]:
        return np.asarray(source(index), variable.dtype)

    if mesh is None:
        array = jax.device_put(part((slice(None),) * variable.ndim))
    else:
        placed = sharding.tree_shardings(variable, mesh).get_value()
        array = jax.make_array_from_callback(variable.shape, placed, part)
    # Wait for each one: pending transfers would pile up in host memory.
    return variable.replace(jax.block_until_ready(array))
