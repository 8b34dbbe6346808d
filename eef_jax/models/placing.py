"""Filling a decoder's parameters: from stored tensors or any other source, onto the devices.

Every device asks for its own part, which is read straight from the file's pages into memory that
becomes the device's (on a CPU) or is freed when it is there. Knows leaves and tensors; knows no
config.json and no adapters' files.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from eef_jax import sharding
from eef_jax.models import stacking
from eef_jax.models.decoder import Decoder
from eef_jax.models.families import hf_names
from eef_jax.models.quantize import QuantizedWeight

Leaf = nnx.Variable | QuantizedWeight
# Parameters as files have them: a quantized weight is one leaf.
Leaves = dict[hf_names.ParamPath, Leaf]
Source = Callable[[tuple[slice, ...]], np.ndarray]  # makes a part of a parameter
SourceOf = Callable[[hf_names.ParamPath, Leaf], Source]


def parameter_leaves(decoder: Decoder) -> Leaves:
    """The parameters of a decoder by path, adapters included."""
    leaves: Leaves = {}
    for path, variable in nnx.to_flat_state(nnx.state(decoder, nnx.Param)):
        owner = hf_names.submodule(decoder, path[:-1])
        if isinstance(owner, QuantizedWeight):
            leaves[path[:-1]] = owner
        else:
            leaves[path] = variable
    return leaves


def unstacked_shapes(leaves: Leaves) -> dict[hf_names.ParamPath, jax.ShapeDtypeStruct]:
    """Shape and type of each leaf under its layer's own name, whatever the layout."""
    return {
        name: jax.ShapeDtypeStruct(_own_shape(leaf), _variable(leaf).dtype)
        for path, leaf in leaves.items()
        for name in stacking.layer_paths(path, _variable(leaf))
    }


def stacked_source(path: hf_names.ParamPath, leaf: Leaf, source_of: SourceOf) -> Source:
    """Where the parts of a leaf come from; a stack's from each of its layers.

    Args:
        path: where the leaf sits.
        leaf: the parameter, or the quantized weight.
        source_of: makes the source of one layer's parameter by its own name.
    """
    sources = [source_of(name, leaf) for name in stacking.layer_paths(path, _variable(leaf))]
    if not _is_stack(leaf):
        return sources[0]

    def part(index: tuple[slice, ...]) -> np.ndarray:
        return np.stack([source(index[1:]) for source in sources[index[0]]])

    return part


def _variable(leaf: Leaf) -> nnx.Variable:
    return leaf.codes if isinstance(leaf, QuantizedWeight) else leaf


def _is_stack(leaf: Leaf) -> bool:
    return "layers" in _variable(leaf).get_metadata()


def _own_shape(leaf: Leaf) -> tuple[int, ...]:
    """One layer's shape."""
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
    """Fill a leaf, every device with the part of it that `source` makes for it.

    A weight is quantized as a whole, on the host, since its scales span parts; one at a time.

    Args:
        path: where the leaf sits.
        leaf: the parameter, or the quantized weight.
        source: makes any part of its float values.
        mesh: where it goes; None for the default device.

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


def _encoded(leaf: QuantizedWeight, source: Source) -> dict[str, np.ndarray]:
    whole = (slice(None), slice(None))
    if not _is_stack(leaf):
        return leaf.encode(source(whole))
    layers = range(leaf.codes.shape[0])
    each = [leaf.encode(source((slice(i, i + 1), *whole))[0]) for i in layers]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def _put(variable: nnx.Variable, source: Source, mesh: Mesh | None) -> nnx.Variable:
    def part(index: Any) -> np.ndarray:
        return np.asarray(source(index), variable.dtype)

    if mesh is None:
        array = jax.device_put(part((slice(None),) * variable.ndim))
    else:
        lies = sharding.tree_shardings(variable, mesh).get_value()
        array = jax.make_array_from_callback(variable.shape, lies, part)
    # One at a time, lest parts on their way to the devices pile up on the host.
    return variable.replace(jax.block_until_ready(array))
