"""From stored tensors to a decoder's parameters: which tensor fills which, and its parts.

Every device asks for its own part of a parameter. It is read straight from the pages of the mapped
file, cast and transposed into memory that becomes the device's array on a CPU, and is freed after
the copy on an accelerator.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np

from eef_jax.models.families import hf_names
from eef_jax.models.huggingface import safetensors
from eef_jax.models.placing import Leaf
from eef_jax.models.quantize import QuantizedWeight

_FLOATS = ("float32", "bfloat16", "float16", "float64")  # types that weights may be stored as
_ALIGNMENT = 64  # bytes
_TILE = 128  # rows transposed at a time: both sides of a tile stay in the processor's cache


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
