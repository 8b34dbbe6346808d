"""Examples on disk: sharded TFRecords in a folder that `tfds.builder_from_directory` opens.

Writes without TensorFlow, through etils.epath, to disks and object stores; `stored` reads. A record
has TensorFlow's framing:

    uint64 length | uint32 masked crc32c(length) | byte data[length] | uint32 masked crc32c(data)

Next to the shards is an index, i64[n, 3] as npy: for each example the offset of its record in its
shard, its tokens and its weighted tokens. It lets a process pack all examples but read only a few.
Where examples are sides of pairs, records have the feature `pair`, and the index a fourth column:
the pair's number from 1, 0 for an example without one. Further columns of examples are the features
`column_<name>`. The caller's manifest, written after this folder, commits it.
"""

import io
import itertools
import struct
from collections.abc import Sequence
from typing import BinaryIO

import google_crc32c
import numpy as np
from etils import epath

from eef_jax.data import example_proto
from eef_jax.errors import DataError
from eef_jax.storage.files import write_bytes
from eef_jax.types import Example

DATASET_NAME = "eef"
VERSION = "1.0.0"  # of the fields below; goes into dataset_info.json
PROVENANCE = ("role", "task", "trajectory", "steps")
COLUMN = "column_"  # prefix of the optional float columns
PAIR = "pair"  # of data sets with pairs alone

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
        DataError: there is no example, or examples differ in their columns.
    """
    if not examples:
        raise DataError(f"no example to write to {folder}: a data set has one at least")
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
    paths, sizes, index = [], [], []
    paired = any(example.pair for example in examples)
    for shard in range(shards):
        data = bytearray()
        for row in examples[bounds[shard] : bounds[shard + 1]]:
            index.append((len(data), len(row.tokens), row.loss_positions.size))
            data += frame(example_proto.serialize(_to_features(row, paired=paired)))
        paths.append(folder / shard_name(split, shard, shards))
        sizes.append(len(data))
        write_bytes(paths[-1], bytes(data))
    table = np.array(index, np.int64)
    if paired:
        table = np.column_stack([table, _pair_numbers(examples)])
    write_bytes(folder / index_name(split), _npy(table))
    lengths = [stop - start for start, stop in itertools.pairwise(bounds)]
    _write_metadata(folder, split, lengths, sum(sizes), columns, description, paired=paired)
    return paths


def _pair_numbers(examples: Sequence[Example]) -> list[int]:
    """The number of each example's pair, in the order they first appear, from 1; 0 without one."""
    numbers: dict[str, int] = {"": 0}
    return [numbers.setdefault(example.pair, len(numbers)) for example in examples]


def read_record(file: BinaryIO) -> bytes:
    """Read the payload of the record at a file's current position.

    Raises:
        ValueError: it is cut off, or one of its checksums is wrong.
    """
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ValueError("is cut off")
    length, length_crc = _HEADER.unpack(header)
    if _masked_crc(header[:8]) != length_crc:
        raise ValueError("has a wrong checksum over its length")
    rest = file.read(length + _FOOTER.size)
    if len(rest) < length + _FOOTER.size:
        raise ValueError("is cut off")
    if _masked_crc(rest[:length]) != _FOOTER.unpack_from(rest, length)[0]:
        raise ValueError("has a wrong checksum")
    return rest[:length]


def frame(payload: bytes) -> bytes:
    """Frame a payload with its length and the two checksums."""
    length = struct.pack("<Q", len(payload))
    return length + _FOOTER.pack(_masked_crc(length)) + payload + _FOOTER.pack(_masked_crc(payload))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted so that data that holds checksums has no trivial one."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def shard_name(split: str, shard: int, shards: int) -> str:
    """Name of a shard's file, as TFDS names them."""
    return f"{DATASET_NAME}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"


def index_name(split: str) -> str:
    """Name of the file with the offset and sizes of each example of a split."""
    return f"{DATASET_NAME}-{split}.index.npy"


def to_bytes(text: str) -> bytes:
    """A text as UTF-8, halves of surrogate pairs included; `to_text` reads it back."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """The text that `to_bytes` was given."""
    return data.decode("utf-8", "surrogatepass")


def _to_features(example: Example, *, paired: bool) -> dict[str, example_proto.Feature]:
    features: dict[str, example_proto.Feature] = {
        "id": [to_bytes(example.id)],
        "tokens": np.asarray(example.tokens, np.int64),
        "weights": np.asarray(example.weights, np.float32),
    }
    for name in PROVENANCE:
        features[name] = [to_bytes(example.provenance.get(name, ""))]
    if paired:
        features[PAIR] = [to_bytes(example.pair)]
    for name, values in example.columns.items():
        features[COLUMN + name] = np.asarray(values, np.float32)
    return features


def _write_metadata(
    folder: epath.Path,
    split: str,
    lengths: Sequence[int],
    size: int,
    columns: Sequence[str],
    description: str,
    *,
    paired: bool,
) -> None:
    """Write features.json and dataset_info.json with TFDS, which needs no TensorFlow for it."""
    import tensorflow_datasets as tfds  # importing takes half a second

    floats = tfds.features.Sequence(np.float32)
    features = {
        "id": tfds.features.Text(),
        "tokens": tfds.features.Sequence(np.int64),
        "weights": floats,
        **{name: tfds.features.Text() for name in (*PROVENANCE, *([PAIR] if paired else []))},
        **{COLUMN + name: floats for name in columns},
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
