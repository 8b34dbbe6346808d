"""Columns of a stored dataset: growing arrays and rows of JSON, read through memory maps.

A map is shared by all processes that read the same file and costs memory only where it is read.

    NAME.npy                            an array
    NAME.jsonl, NAME.offsets.npy        rows of JSON, and where each starts
    NAME.keys.npy, NAME.places.npy      sorted digests of the rows' keys, and the row of each
"""

import hashlib
import json
import mmap
import pathlib
from array import array
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from eef_jax.envs.webshop.lazy import LazySequence

_HEADER = 128  # bytes; room for any length of a one-dimensional array


def hash64(text: str) -> int:
    """64 bits that stand for a text (two of a million texts share them with odds of 1 in 10^7)."""
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def open_array(folder: pathlib.Path, name: str) -> np.ndarray:
    """A stored array, memory-mapped."""
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))


class ArrayWriter:
    """Appends to a stored array; a context manager, the file is whole when it is left."""

    def __init__(self, folder: pathlib.Path, name: str, dtype: npt.DTypeLike):
        self.length = 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._file = (folder / f"{name}.npy").open("wb")
        self._file.write(bytes(_HEADER))

    def append(self, values: npt.ArrayLike) -> None:
        """Add values at the end."""
        block = np.ascontiguousarray(values, self._dtype)
        self._file.write(block.data)
        self.length += block.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fields = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.length,),
        }
        magic = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(magic + str(fields).encode().ljust(_HEADER - 11) + b"\n")
        self._file.close()


def write_array(folder: pathlib.Path, name: str, values: npt.ArrayLike) -> None:
    """Store an array that is in memory."""
    np.save(folder / f"{name}.npy", values)


class RowWriter:
    """Appends rows of JSON; a context manager, the files are whole when it is left."""

    def __init__(self, folder: pathlib.Path, name: str):
        self._file = (folder / f"{name}.jsonl").open("wb")
        self._offsets = ArrayWriter(folder, f"{name}.offsets", np.int64)
        self._starts = array("q", [0])

    def append(self, row: Any) -> None:
        """Add a row."""
        # ASCII alone: unpaired surrogates, which some titles hold, have no UTF-8.
        line = json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n"
        self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        with self._offsets:
            self._offsets.append(np.frombuffer(self._starts, np.int64))


class RowReader(LazySequence[Any]):
    """Stored rows of JSON; each is parsed when it is asked for."""

    def __init__(self, folder: pathlib.Path, name: str):
        offsets = open_array(folder, f"{name}.offsets")
        count = len(offsets) - 1
        with (folder / f"{name}.jsonl").open("rb") as file:
            # Nothing cannot be mapped.
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if count else b""

        def row(place: int) -> Any:
            start, stop = offsets[place : place + 2].tolist()
            return json.loads(text[start:stop].decode("ascii"))

        super().__init__(count, row)


class KeyIndexWriter:
    """Collects the key of each row, in row order; 8 bytes of memory a key until `close`."""

    def __init__(self, folder: pathlib.Path, name: str):
        self._folder, self._name, self._digests = folder, name, array("Q")

    def append(self, key: str) -> None:
        """Add the next row's key."""
        self._digests.append(hash64(key))

    def close(self) -> None:
        """Sort and store them."""
        digests = np.frombuffer(self._digests, np.uint64)
        places = np.argsort(digests, kind="stable")
        write_array(self._folder, f"{self._name}.keys", digests[places])
        write_array(self._folder, f"{self._name}.places", places)


class KeyIndex:
    """Finds rows by their keys."""

    def __init__(self, folder: pathlib.Path, name: str):
        self._digests = open_array(folder, f"{name}.keys")
        self._places = open_array(folder, f"{name}.places")

    def find(self, key: str) -> list[int]:
        """Candidate rows for a key: digests may collide, so compare the keys stored in the rows."""
        wanted = np.uint64(hash64(key))
        start = np.searchsorted(self._digests, wanted, "left")
        stop = np.searchsorted(self._digests, wanted, "right")
        return self._places[start:stop].tolist()
