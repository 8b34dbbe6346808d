"""Examples on disk: sharded TFRecords in a folder that `tfds.builder_from_directory` opens.

Writes and reads without TensorFlow, through etils.epath (local folders and object stores alike).
A record is framed as TensorFlow frames it, and both of its checksums are verified on every read:

    uint64 length | uint32 masked crc32c(length) | byte data[length] | uint32 masked crc32c(data)

Knows the fields of an `Example` and the layout of the folder; knows nothing of how examples come to
be or are used. The caller's manifest, written after this folder, is what commits it.
"""

import itertools
import json
import struct
from collections.abc import Iterator, Mapping, Sequence

import google_crc32c
import numpy as np
from etils import epath

from eef_jax.data import example_proto
from eef_jax.errors import DataError
from eef_jax.files import write_bytes
from eef_jax.types import Example

DATASET_NAME = "eef"
VERSION = "1.0.0"  # of the fields below; goes into dataset_info.json
PROVENANCE = ("role", "task", "trajectory", "steps")
_COLUMN = "column_"  # prefix of the optional float columns

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def write(
    folder: epath.PathLike,
    examples: Sequence[Example],
    *,
    split: str = "train",
    shards: int = 4,
    description: str = "",
) -> list[epath.Path]:
    """Write examples as `eef-<split>.tfrecord-00000-of-00004`, ... with TFDS metadata.

    Args:
        folder: where to write; made if it does not exist.
        examples: what to write; all have the same columns. Their order is kept across shards.
        split: name of the split.
        shards: number of files; fewer when there are fewer examples.
        description: goes into dataset_info.json.

    Returns:
        The paths of the shards.

    Raises:
        DataError: when there is no example, or examples differ in their columns.
    """
    if not examples:
        raise DataError(
            f"no example to write to {folder}; the selection before this stage kept no step "
            "(see its counts)"
        )
    columns = tuple(sorted(examples[0].columns))
    for example in examples:
        if tuple(sorted(example.columns)) != columns:
            raise DataError(
                f"example {example.id!r} has columns {sorted(example.columns)}, the first one has "
                f"{list(columns)}; all examples of a data set need the same"
            )
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = min(shards, len(examples))
    bounds = [len(examples) * shard // shards for shard in range(shards + 1)]
    paths, sizes = [], []
    for shard in range(shards):
        rows = examples[bounds[shard] : bounds[shard + 1]]
        data = b"".join(frame(example_proto.serialize(_to_features(row))) for row in rows)
        paths.append(folder / _shard_name(split, shard, shards))
        sizes.append(len(data))
        write_bytes(paths[-1], data)
    lengths = [stop - start for start, stop in itertools.pairwise(bounds)]
    _write_metadata(folder, split, lengths, sum(sizes), columns, description)
    return paths


def read(folder: epath.PathLike, *, split: str = "train") -> Iterator[Example]:
    """Read the examples of a split in the order they were written.

    Raises:
        DataError: when the folder, a shard or a record is missing, cut off or damaged; the message
            names the file and the number of the record (from 0).
    """
    folder = epath.Path(folder)
    lengths = _shard_lengths(folder, split)
    for shard, length in enumerate(lengths):
        path = folder / _shard_name(split, shard, len(lengths))
        number = -1
        for number, record in enumerate(read_records(path)):
            try:
                yield _from_features(example_proto.parse(record))
            except (ValueError, KeyError, IndexError, UnicodeDecodeError, AttributeError) as error:
                raise _damaged(
                    path, number, f"is no example of this version ({error!r})"
                ) from error
        if number + 1 != length:
            raise _damaged(
                path, number + 1, f"is missing: dataset_info.json tells of {length} records"
            )


def read_records(path: epath.PathLike) -> Iterator[bytes]:
    """Read the payloads of one TFRecord file, verifying length and checksums of each.

    Raises:
        DataError: see `read`.
    """
    path = epath.Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"shard {path} is missing; {_REMEDY}") from error
    at = number = 0
    while at < len(data):
        if at + _HEADER.size > len(data):
            raise _damaged(path, number, "is cut off")
        length, length_crc = _HEADER.unpack_from(data, at)
        if _masked_crc(data[at : at + 8]) != length_crc:
            raise _damaged(path, number, "has a wrong checksum over its length")
        start, stop = at + _HEADER.size, at + _HEADER.size + length
        if stop + _FOOTER.size > len(data):
            raise _damaged(path, number, "is cut off")
        payload = data[start:stop]
        if _masked_crc(payload) != _FOOTER.unpack_from(data, stop)[0]:
            raise _damaged(path, number, "has a wrong checksum")
        yield payload
        at, number = stop + _FOOTER.size, number + 1


def frame(payload: bytes) -> bytes:
    """One record with its length and its two checksums."""
    length = struct.pack("<Q", len(payload))
    return length + _FOOTER.pack(_masked_crc(length)) + payload + _FOOTER.pack(_masked_crc(payload))


_REMEDY = "delete the data folder (or start with --overwrite) so that its stage writes it again"


def _damaged(path: epath.Path, number: int, what: str) -> DataError:
    return DataError(f"{path}: record {number} {what}; {_REMEDY}")


def _masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted so that data that holds checksums has no trivial one."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _shard_name(split: str, shard: int, shards: int) -> str:
    return f"{DATASET_NAME}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"


def _to_features(example: Example) -> dict[str, example_proto.Feature]:
    features: dict[str, example_proto.Feature] = {
        "id": [example.id.encode()],
        "tokens": np.asarray(example.tokens, np.int64),
        "weights": np.asarray(example.weights, np.float32),
    }
    for name in PROVENANCE:
        features[name] = [example.provenance.get(name, "").encode()]
    for name, values in example.columns.items():
        features[_COLUMN + name] = np.asarray(values, np.float32)
    return features


def _from_features(features: Mapping[str, example_proto.Feature]) -> Example:
    tokens = np.asarray(features["tokens"], np.int32)
    weights = np.asarray(features["weights"], np.float32)
    if tokens.shape != weights.shape:
        raise ValueError(f"{tokens.size} tokens, {weights.size} weights")
    return Example(
        id=features["id"][0].decode(),
        tokens=tokens,
        weights=weights,
        columns={
            name.removeprefix(_COLUMN): np.asarray(values, np.float32)
            for name, values in features.items()
            if name.startswith(_COLUMN)
        },
        provenance={name: features[name][0].decode() for name in PROVENANCE},
    )


def _shard_lengths(folder: epath.Path, split: str) -> list[int]:
    path = folder / "dataset_info.json"
    try:
        splits = json.loads(path.read_text())["splits"]
        known = {entry["name"]: [int(n) for n in entry["shardLengths"]] for entry in splits}
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing, so {folder} is no finished data set; {_REMEDY}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}); {_REMEDY}") from error
    if split not in known:
        raise DataError(f"{folder} has no split {split!r}; it has {', '.join(known)}")
    return known[split]


def _write_metadata(
    folder: epath.Path,
    split: str,
    lengths: Sequence[int],
    size: int,
    columns: Sequence[str],
    description: str,
) -> None:
    """Write features.json and dataset_info.json by TFDS itself; that needs no TensorFlow."""
    import tensorflow_datasets as tfds  # half a second: only who writes a data set pays for it

    floats = tfds.features.Sequence(np.float32)
    features = {
        "id": tfds.features.Text(),
        "tokens": tfds.features.Sequence(np.int64),
        "weights": floats,
        **{name: tfds.features.Text() for name in PROVENANCE},
        **{_COLUMN + name: floats for name in columns},
    }
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=DATASET_NAME, filetype_suffix="tfrecord"
    )
    info = tfds.core.SplitInfo(
        name=split, shard_lengths=list(lengths), num_bytes=size, filename_template=template
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[info],
        version=VERSION,
        check_data=False,
        description=description
        or "Token sequences with loss weights, selected by a method of EEF-JAX.",
    )
