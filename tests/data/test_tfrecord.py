"""TFRecords: what is written is read back, and damage is named by file and record."""

import json
import pathlib
import tempfile
from unittest import mock

import numpy as np
import pytest
from hypothesis import strategies as st

from eef_jax.data import example_proto, tfrecord
from eef_jax.data.stored import StoredExamples
from eef_jax.errors import DataError
from eef_jax.types import Example
from tests.properties import TEXTS, holds


def examples(count, columns=()):
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        size = int(rng.integers(1, 40))
        made.append(
            Example(
                id=f"tâche-{number}",
                tokens=rng.integers(0, 300_000, size).astype(np.int32),
                weights=rng.random(size).astype(np.float32),
                columns={name: rng.random(size).astype(np.float32) for name in columns},
                provenance={"role": "s0", "task": "t", "trajectory": f"x{number}", "steps": "[]"},
            )
        )
    return made


def starts(folder):
    return np.load(folder / tfrecord.index_name("train"))[:, 0].tolist()


def assert_equal(left, right):
    assert (left.id, dict(left.provenance)) == (right.id, dict(right.provenance))
    np.testing.assert_array_equal(left.tokens, right.tokens)
    np.testing.assert_array_equal(left.weights, right.weights)
    assert left.tokens.dtype == right.tokens.dtype
    assert left.columns.keys() == right.columns.keys()
    for name, values in left.columns.items():
        np.testing.assert_array_equal(values, right.columns[name])


@pytest.mark.parametrize("columns", [(), ("reference",)])
def test_round_trip_keeps_order_over_shards(tmp_path, columns):
    written = examples(11, columns)
    paths = tfrecord.write(tmp_path, written, shards=4)
    assert [path.name for path in paths] == [
        f"eef-train.tfrecord-0000{shard}-of-00004" for shard in range(4)
    ]
    stored = StoredExamples(tmp_path)
    for left, right in zip(written, stored, strict=True):
        assert_equal(left, right)
    assert_equal(written[7], stored[7])
    sizes = [(len(example.tokens), np.count_nonzero(example.weights[1:])) for example in written]
    np.testing.assert_array_equal(stored.sizes, sizes)
    assert not list(tmp_path.glob("*.tmp"))


def test_round_trip_through_a_bucket(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    written = examples(5)
    tfrecord.write(f"{bucket}/run/select/dataset", written, shards=2)
    read = StoredExamples(f"{bucket}/run/select/dataset")
    for left, right in zip(written, read, strict=True):
        assert_equal(left, right)


def test_equal_examples_give_equal_bytes(tmp_path):
    first = tfrecord.write(tmp_path / "a", examples(5), shards=2)
    second = tfrecord.write(tmp_path / "b", examples(5), shards=2)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_metadata_tells_shards_and_fields(tmp_path):
    tfrecord.write(tmp_path, examples(3), shards=8)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["1", "1", "1"]
    fields = json.loads((tmp_path / "features.json").read_text())["featuresDict"]["features"]
    assert set(fields) == {"id", "tokens", "weights", *tfrecord.PROVENANCE}


def test_any_flipped_byte_names_file_and_record(tmp_path):
    (path,) = tfrecord.write(tmp_path, examples(3), shards=1)
    whole = path.read_bytes()
    second = starts(tmp_path)[1]
    for offset in (0, 9, 20, len(whole) - second - 1):  # length, its checksum, data, its checksum
        damaged = bytearray(whole)
        damaged[second + offset if second + offset < len(whole) else -1] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(
            DataError, match=rf"{path.name}: record [12] .*move the folder of its stage away"
        ):
            list(StoredExamples(tmp_path))


def test_a_truncated_shard_names_the_first_lost_record(tmp_path):
    (path,) = tfrecord.write(tmp_path, examples(3), shards=1)
    whole = path.read_bytes()
    third = starts(tmp_path)[2]
    for kept in (len(whole) - 1, third + 5, third):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"record 2 is cut off"):
            list(StoredExamples(tmp_path))


def test_a_sound_record_of_another_kind_is_refused(tmp_path):
    (path,) = tfrecord.write(tmp_path, examples(1), shards=1)
    path.write_bytes(tfrecord.frame(example_proto.serialize({"other": [b"x"]})))
    with pytest.raises(DataError, match="record 0 is not an example of this version"):
        list(StoredExamples(tmp_path))
    path.write_bytes(tfrecord.frame(b"\xff\xff"))
    with pytest.raises(DataError, match="record 0 is not an example of this version"):
        list(StoredExamples(tmp_path))


def test_an_index_of_other_records_is_refused(tmp_path):
    tfrecord.write(tmp_path, examples(3), shards=1)
    path = tmp_path / tfrecord.index_name("train")
    index = np.load(path)
    np.save(path, index[:2])
    with pytest.raises(DataError, match=r"shape \(2, 3\), but dataset_info.json tells of 3 rec"):
        StoredExamples(tmp_path)
    np.save(path, index + np.array([0, 1, 0]))
    with pytest.raises(DataError, match=r"record 0 is not an example .* the index tells of"):
        list(StoredExamples(tmp_path))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"index.npy is damaged"):
        StoredExamples(tmp_path)


def test_missing_pieces_are_named(tmp_path):
    with pytest.raises(DataError, match=r"dataset_info\.json is missing"):
        list(StoredExamples(tmp_path))
    paths = tfrecord.write(tmp_path, examples(4), shards=2)
    with pytest.raises(DataError, match="no split 'dev'; it has train"):
        list(StoredExamples(tmp_path, split="dev"))
    paths[1].unlink()
    assert StoredExamples(tmp_path)[0].id  # what is not asked for may be missing
    with pytest.raises(DataError, match=f"shard .*{paths[1].name} is missing"):
        list(StoredExamples(tmp_path))


def test_nothing_to_write_and_unequal_columns_are_refused(tmp_path):
    with pytest.raises(DataError, match="no example to write"):
        tfrecord.write(tmp_path, [])
    with pytest.raises(DataError, match="all examples of a data set need the same"):
        tfrecord.write(tmp_path, examples(1) + examples(1, ("reference",)))


def test_serialized_bytes_stay_the_same():
    features = {"b": np.array([1, 300]), "a": [b"x"]}
    assert example_proto.serialize(features).hex() == (
        "0a1a0a0a0a016112050a030a01780a0c0a016212071a050a0301ac02"
    )


@pytest.mark.parametrize(
    "values",
    [
        np.array([], np.int64),
        np.array([0, 1, 127, 128, 300_000, 2**62, -1, -(2**63)], np.int64),
        np.array([0.0, -1.5, 3e38], np.float32),
        [b"", b"bytes", "été".encode()],
    ],
)
def test_features_survive_the_wire_format(values):
    parsed = example_proto.parse(example_proto.serialize({"x": values, "y": [b"other"]}))
    assert parsed["y"] == [b"other"]
    if isinstance(values, list):
        assert parsed["x"] == values
    else:
        np.testing.assert_array_equal(parsed["x"], values)


FLOATS = st.floats(0, 8, width=32)


@st.composite
def drawn_example(draw):
    tokens = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6))
    column = st.lists(FLOATS, min_size=len(tokens), max_size=len(tokens))
    return Example(
        id=draw(TEXTS),
        tokens=np.array(tokens, np.int32),
        weights=np.array(draw(column), np.float32),
        columns={"reference": np.array(draw(column), np.float32)},
        provenance={name: draw(TEXTS) for name in tfrecord.PROVENANCE},
    )


@holds(st.lists(drawn_example(), min_size=1, max_size=4), st.integers(1, 3), st.data())
def test_any_examples_come_back_and_any_changed_byte_is_noticed(given, shards, data):
    with tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(tfrecord, "_write_metadata"):  # TFDS's own, and slow
            paths = tfrecord.write(folder, given, shards=shards)
        lengths = [
            len(given) * (n + 1) // len(paths) - len(given) * n // len(paths)
            for n in range(len(paths))
        ]
        info = {"splits": [{"name": "train", "shardLengths": lengths}]}
        (pathlib.Path(folder) / "dataset_info.json").write_text(json.dumps(info))
        for made, read in zip(given, StoredExamples(folder), strict=True):
            assert (made.id, made.provenance) == (read.id, read.provenance)
            assert all(
                np.array_equal(getattr(made, n), getattr(read, n)) for n in ("tokens", "weights")
            )
            assert np.array_equal(made.columns["reference"], read.columns["reference"])
        path = data.draw(st.sampled_from(paths))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(content))
        with pytest.raises(DataError, match=path.name):
            list(StoredExamples(folder))
