"""Filling a decoder's parameters: from stored tensors or any other source, onto the devices.

Every device asks for its own part, which is read straight from the file's pages into memory that
becomes the device's (on a CPU) or is freed when it is there. Knows leaves and tensors; knows no
config.json and no adapters' files.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from eef_jax import sharding
from eef_jax.models import stacking
from eef_jax.models.decoder import Decoder
from eef_jax.models.families import hf_names
from eef_jax.models.huggingface import safetensors
from eef_jax.models.quantize import QuantizedWeight

_FLOATS = ("float32", "bfloat16", "float16", "float64")  # what weights may be stored as
_ALIGNMENT = 64  # bytes
_TILE = 128  # rows turned at a time: both sides of a tile stay in the processor's cache

Leaf = nnx.Variable | QuantizedWeight
Leaves = dict[
    hf_names.ParamPath, Leaf
]  # parameters as files have them: a quantized weight is one leaf
Source = Callable[[tuple[slice, ...]], np.ndarray]  # makes a part of a parameter


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


def stacked_source(
    path: hf_names.ParamPath, leaf: Leaf, source_of: Callable[[hf_names.ParamPath], Source]
) -> Source:
    """Where the parts of a leaf come from; a stack's from each of its layers.

    Args:
        path: where the leaf sits.
        leaf: the parameter, or the quantized weight.
        source_of: makes the source of one layer's parameter by its own name.
    """
    sources = [source_of(name) for name in stacking.layer_paths(path, _variable(leaf))]
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


def read_leaf(
    stored: safetensors.StoredTensor, path: hf_names.ParamPath, leaf: Leaf, index: tuple[slice, ...]
) -> np.ndarray:
    """A part of a layer's stored tensor as the decoder has it, read into memory of its own.

    The memory is aligned as XLA wants it, so that on a CPU it becomes the device's array without
    another copy.
    """
    turned = hf_names.is_transposed(len(stored.shape), path)
    view = stored.read(index[::-1]).T if turned else stored.read(index)
    dtype = np.dtype(np.float32 if isinstance(leaf, QuantizedWeight) else leaf.dtype)
    out = _aligned(view.shape, dtype)
    for start in range(0, view.shape[1], _TILE) if turned else ():
        at = slice(start, start + _TILE)
        np.copyto(out[:, at], view[:, at], casting="unsafe")
    if not turned:
        np.copyto(out, view, casting="unsafe")
    return out


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def tensor_mismatches(
    stored: Mapping[str, hf_names.ParamPath],
    found: Mapping[str, safetensors.StoredTensor],
    leaves: Mapping[hf_names.ParamPath, jax.ShapeDtypeStruct],
) -> list[str]:
    """All that is wrong with a file's tensors, a line each.

    Args:
        stored: name -> path, of what it must hold.
        found: name -> tensor, of what it does.
        leaves: the parameters to fill, by their layers' own names; they have a shape.
    """
    problems = [f"missing: {name}" for name in stored if name not in found]
    problems += [f"unexpected: {name}" for name in sorted(found) if name not in stored]
    for name, path in stored.items():
        if name not in found:
            continue
        got, shape = found[name], tuple(leaves[path].shape)
        expected = shape[::-1] if hf_names.is_transposed(len(shape), path) else shape
        if got.shape != expected:
            problems.append(f"shape of {name}: got {list(got.shape)}, expected {list(expected)}")
        if got.dtype.name not in _FLOATS:
            problems.append(f"type of {name}: got {got.dtype}, expected {' or '.join(_FLOATS)}")
    return problems
