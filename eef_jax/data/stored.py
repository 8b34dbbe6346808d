"""A split of a dataset on disk as a sequence of examples, each read on access.

The lengths that packing needs are in the index, so every process packs the same rows but reads only
the records in its rows. Checksums are verified on each read.
"""

import bisect
import io
import itertools
import json
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath

from eef_jax.data import example_proto
from eef_jax.data.tfrecord import (
    COLUMN,
    PAIR,
    PROVENANCE,
    index_name,
    read_record,
    shard_name,
    to_text,
)
from eef_jax.errors import DataError
from eef_jax.storage import files
from eef_jax.types import Example

_REMEDY = "move the folder of its stage away, so that the stage writes it again"


class StoredExamples:
    """Examples in the order they were written.

    Args:
        folder: of the dataset, local or in an object store.
        split: name of the split.

    Attributes:
        sizes: i64[n, 2], tokens and weighted tokens of each example.
        pairs: number of the pair that each example is a side of, from 1; 0 without one.

    Raises:
        DataError: the folder is not a dataset, or its metadata or index are missing or damaged; on
            access, also if the shard is missing, or the record cut off or damaged. The message
            names the file and the number of the record in it (from 0).
    """

    def __init__(self, folder: epath.PathLike, *, split: str = "train") -> None:
        folder = epath.Path(folder)
        lengths = _shard_lengths(folder, split)
        names = [shard_name(split, n, len(lengths)) for n in range(len(lengths))]
        self._shards = [folder / name for name in names]
        # One request for each example would be slow: shards in an object store are copied.
        local = files.local_copy(folder, only=names)
        self._opened = [local / name for name in names]
        self._begins = [0, *itertools.accumulate(lengths)]
        index = _read_index(folder / index_name(split), self._begins[-1])
        self._offsets, self.sizes = index[:, 0].tolist(), index[:, 1:3]
        self.pairs: list[int] = index[:, 3].tolist() if index.shape[1] > 3 else [0] * len(index)

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Example]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Example:
        """Read an example.

        Args:
            number: its index among all examples, from 0.
        """
        shard = bisect.bisect_right(self._begins, number) - 1
        path = self._shards[shard]
        try:
            with self._opened[shard].open("rb") as file:
                file.seek(self._offsets[number])
                record = read_record(file)
        except FileNotFoundError as error:
            raise DataError(f"shard {path} is missing; {_REMEDY}") from error
        except ValueError as error:
            raise _damaged(path, number - self._begins[shard], str(error)) from error
        try:
            return _example(example_proto.parse(record), self.sizes[number].tolist())
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            what = f"is not an example of this version ({error!r})"
            raise _damaged(path, number - self._begins[shard], what) from error


def _example(features: Mapping[str, example_proto.Feature], sizes: list[int]) -> Example:
    tokens = np.asarray(features["tokens"], np.int32)
    weights = np.asarray(features["weights"], np.float32)
    if tokens.shape != weights.shape:
        raise ValueError(f"{tokens.size} tokens, {weights.size} weights")
    example = Example(
        id=to_text(features["id"][0]),
        tokens=tokens,
        weights=weights,
        columns={
            name.removeprefix(COLUMN): np.asarray(values, np.float32)
            for name, values in features.items()
            if name.startswith(COLUMN)
        },
        pair=to_text(features[PAIR][0]) if PAIR in features else "",
        provenance={name: to_text(features[name][0]) for name in PROVENANCE},
    )
    if sizes != (got := [tokens.size, example.loss_positions.size]):
        raise ValueError(f"{got} tokens and learned tokens, the index tells of {sizes}")
    return example


def _read_index(path: epath.Path, count: int) -> np.ndarray:
    try:
        index = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {_REMEDY}") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error!r}); {_REMEDY}") from error
    if index.shape not in ((count, 3), (count, 4)):
        raise DataError(
            f"{path} is of shape {index.shape}, but dataset_info.json tells of {count} records; "
            f"{_REMEDY}"
        )
    return index


def _shard_lengths(folder: epath.Path, split: str) -> list[int]:
    path = folder / "dataset_info.json"
    try:
        splits = json.loads(path.read_text())["splits"]
        known = {entry["name"]: [int(n) for n in entry["shardLengths"]] for entry in splits}
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing, so {folder} is not a finished dataset; {_REMEDY}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}); {_REMEDY}") from error
    if split not in known:
        raise DataError(f"{folder} has no split {split!r}; it has {', '.join(known)}")
    return known[split]


def _damaged(path: epath.Path, number: int, what: str) -> DataError:
    return DataError(f"{path}: record {number} {what}; {_REMEDY}")
