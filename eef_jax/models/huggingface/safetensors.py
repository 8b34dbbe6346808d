"""Folders of safetensors files: memory-mapped reads, streamed writes.

Reads are views of the mapped file, whose pages the system can drop at any time; a write never holds
more than one tensor. A folder has one file, or several with an index.

Format: 8 bytes of header length, a JSON header (name -> dtype, shape, offsets of first byte and
end), the bytes of the tensors. See https://huggingface.co/docs/safetensors.
"""
# Written without the safetensors library, so that a device's part of a tensor is a view of
# the mapped file, writing holds one tensor at a time, and bfloat16 works in numpy.

import dataclasses
import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from jaxtyping import Shaped

from eef_jax.errors import DataError
from eef_jax.models.huggingface import foreign
from eef_jax.storage import files, git_lfs

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD = 5 * 10**9  # bytes per file of weights, the default of transformers

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        file: file that holds it.
        start: offset of its first byte in the file.
        dtype: type of its elements.
        shape: shape of the tensor.
    """

    file: epath.Path
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, index: tuple[slice, ...] = ()) -> Shaped[np.ndarray, "..."]:
        """Read a part of the tensor: a read-only view of a local file, a copy from an object store.

        Args:
            index: a slice (without steps) for each dimension; () for the whole tensor.
        """
        if files.is_local(self.file):
            raw: Shaped[np.ndarray, " bytes"] = np.memmap(
                self.file, np.uint8, "r", self.start, (self.nbytes,)
            )
            return raw.view(self.dtype).reshape(self.shape)[index]
        # Rows are contiguous, so that only the requested ones are fetched.
        first, end, _ = (index or (slice(None),))[0].indices(self.shape[0])
        row = self.nbytes // max(self.shape[0], 1)
        with self.file.open("rb") as file:
            file.seek(self.start + first * row)
            data = file.read((end - first) * row)
        part = np.frombuffer(data, self.dtype).reshape(end - first, *self.shape[1:])
        return part[(slice(None), *index[1:])]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Type and shape of a tensor to be written."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_folder(folder: epath.Path) -> dict[str, StoredTensor]:
    """List the tensors of a model's folder: of `model.safetensors`, or of all files of the index.

    Raises:
        DataError: a file is missing, damaged or in another form, or contradicts the index.
    """
    if not (folder / INDEX).exists():
        return open_file(folder / WEIGHTS)[0]
    places = _read_index(folder)
    names = sorted(set(places.values()))
    if WEIGHTS not in names and (folder / WEIGHTS).exists():
        raise DataError(
            f"{folder} has {WEIGHTS} and an index that names other files ({names[0]}, ...), which "
            f"may be two models: move {WEIGHTS} out of the folder, or {INDEX} with its files"
        )
    files_tensors = {name: open_file(folder / name)[0] for name in names}
    if lost := [one for one, name in places.items() if one not in files_tensors[name]]:
        raise DataError(
            f"{folder / INDEX} contradicts the files: {len(lost)} of its {len(places)} tensors are "
            f"not where it says, such as {lost[0]} in {places[lost[0]]}: copy the index and all "
            "its files again, from one model"
        )
    # A tensor that another file holds too, as a leftover, is read from where the index says.
    unlisted = {k: v for one in files_tensors.values() for k, v in one.items() if k not in places}
    return unlisted | {one: files_tensors[name][one] for one, name in places.items()}


def _read_index(folder: epath.Path) -> dict[str, str]:
    """The file of each tensor."""
    listed = files.read_json(folder / INDEX, remedy="copy it again")
    places = listed.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise DataError(f"{folder / INDEX} has no weight_map of tensors and files: copy it again")
    return places


def open_file(file: epath.Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """List the tensors of a file, and its metadata.

    Raises:
        DataError: it is missing, damaged or in another form.
    """
    if not file.exists():
        raise DataError(foreign.missing(file))
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(0)
            head = opened.read(git_lfs.HEAD_BYTES)
            if git_lfs.is_pointer(head):
                raise DataError(git_lfs.explained(file))
            (length,) = struct.unpack("<Q", head[:8])
            if length > size - 8:
                raise ValueError(f"its header of {length} bytes exceeds the file")
            opened.seek(8)
            header = json.loads(opened.read(length))
        metadata = header.pop("__metadata__", {})
        tensors = {
            name: _stored(file, name, 8 + length, size, entry) for name, entry in header.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise DataError(f"{file} is damaged ({error}): copy it again") from error
    return tensors, metadata


def _stored(
    file: epath.Path, name: str, data: int, size: int, entry: Mapping[str, Any]
) -> StoredTensor:
    if entry["dtype"] not in _DTYPES:
        if said := foreign.unreadable_type(file, name, entry["dtype"]):
            raise DataError(said)
        raise ValueError(f"type {entry['dtype']}, known are {', '.join(_DTYPES)}")
    first, end = entry["data_offsets"]
    shape = tuple(int(n) for n in entry["shape"])
    found = StoredTensor(file=file, start=data + first, dtype=_DTYPES[entry["dtype"]], shape=shape)
    if first < 0 or end - first != found.nbytes or data + end > size:
        raise ValueError(f"a tensor's bytes {first} to {end} are not {list(shape)} in the file")
    return found


def write_folder(
    folder: epath.Path,
    plan: Mapping[str, TensorSpec],
    produce: Callable[[str], Shaped[np.ndarray, "..."]],
    *,
    max_shard: int = MAX_SHARD,
) -> None:
    """Write a model's tensors: one file, or above `max_shard` bytes several with an index.

    Args:
        folder: an existing folder. Files with the same names are replaced.
        plan: type and shape of each tensor, in the order of the files.
        produce: makes a tensor by its name, right before it is written.
        max_shard: bytes of tensors per file; a larger tensor has a separate file.
    """
    shards = _shards(plan, max_shard)
    if len(shards) == 1:
        write_file(folder / WEIGHTS, plan, produce)
        (folder / INDEX).unlink(missing_ok=True)  # an older export's would hide the file
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_file(folder / name, shard, produce)
        places |= dict.fromkeys(shard, name)
    total = sum(tensor.nbytes for tensor in plan.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    files.write_json(folder / INDEX, index)


def write_file(
    file: epath.Path,
    plan: Mapping[str, TensorSpec],
    produce: Callable[[str], Shaped[np.ndarray, "..."]],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file tensor by tensor; it replaces an older one atomically.

    Args:
        file: the file.
        plan: type and shape of each tensor, in the order of their bytes.
        produce: makes a tensor by its name, right before it is written.
        metadata: strings for the header.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, tensor in plan.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    # Object stores show only complete objects; on a disk, the rename makes the file visible.
    local = files.is_local(file)
    partial = file.with_name(file.name + files.TEMP_SUFFIX) if local else file
    try:
        with partial.open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name, tensor in plan.items():
                value = np.ascontiguousarray(produce(name), tensor.dtype)
                assert value.shape == tensor.shape, f"{name}: {value.shape}, not {tensor.shape}"
                out.write(value.reshape(-1).view(np.uint8).data)
            if local:
                out.flush()
                os.fsync(out.fileno())
        if local:
            partial.replace(file)
    finally:
        if local:
            partial.unlink(missing_ok=True)


def _shards(plan: Mapping[str, TensorSpec], most: int) -> list[dict[str, TensorSpec]]:
    """Split a plan into consecutive parts of at most `most` bytes."""
    shards: list[dict[str, TensorSpec]] = [{}]
    room = most
    for name, tensor in plan.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = most
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards
