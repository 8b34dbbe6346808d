"""From stored tensors to a decoder's parameters: which tensor fills which, and its parts.

Every device asks for its own part of a parameter. It is read straight from the pages of the mapped
file, cast and transposed into memory that becomes the device's array on a CPU, and is freed after
the copy on an accelerator.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float, Shaped

from eef_jax.models.families import hf_names
from eef_jax.models.huggingface import safetensors
from eef_jax.models.placing import Leaf
from eef_jax.models.quantize import QuantizedWeight

_FLOATS = ("float32", "bfloat16", "float16", "float64")  # types that weights may be stored as
_ALIGNMENT = 64  # bytes
_TILE = 128  # rows transposed at a time: both sides of a tile stay in the processor's cache


def read_leaf(
    stored: safetensors.StoredTensor, path: hf_names.ParamPath, leaf: Leaf, index: tuple[slice, ...]
) -> Float[np.ndarray, "..."]:
    """Read a part of a stored tensor in the decoder's layout and type.

    Args:
        stored: the tensor in its file.
        path: path of one layer's parameter; decides whether the file has it transposed.
        leaf: the parameter, or the quantized weight (read as float32), that it becomes.
        index: slices of the part, in the decoder's layout.
    """
    transposed = hf_names.is_transposed(len(stored.shape), path)
    view = stored.read(index[::-1]).T if transposed else stored.read(index)
    dtype = np.dtype(np.float32 if isinstance(leaf, QuantizedWeight) else leaf.dtype)
    out = _aligned(view.shape, dtype)
    for start in range(0, view.shape[1], _TILE) if transposed else ():
        at = slice(start, start + _TILE)
        np.copyto(out[:, at], view[:, at], casting="unsafe")
    if not transposed:
        np.copyto(out, view, casting="unsafe")
    return out


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
    # XLA on CPU uses aligned host memory as the array itself, without another copy.
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def tensor_mismatches(
    stored: Mapping[str, hf_names.ParamPath],
    found: Mapping[str, safetensors.StoredTensor],
    leaves: Mapping[hf_names.ParamPath, jax.ShapeDtypeStruct],
) -> list[str]:
    """Describe every tensor that does not match the model, one line each.

    Args:
        stored: Hugging Face name -> path of every tensor that is expected.
        found: Hugging Face name -> tensor of every tensor that the files hold.
        leaves: shapes of the parameters, each layer under its own path.
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
