"""Our TFRecord folders against real TensorFlow and TFDS, in both directions."""

import numpy as np
import pytest

from eef_jax.data import example_proto, tfrecord
from eef_jax.types import Example

tf = pytest.importorskip("tensorflow")


def examples():
    rng = np.random.default_rng(1)
    return [
        Example(
            id=f"example {number}",
            tokens=rng.integers(0, 200_000, 5 + number).astype(np.int32),
            weights=rng.random(5 + number).astype(np.float32),
            columns={"reference": rng.random(5 + number).astype(np.float32)},
            provenance={"role": "s0", "task": "t", "trajectory": "x", "steps": '[{"weight": 1}]'},
        )
        for number in range(7)
    ]


def test_tensorflow_reads_our_records(tmp_path):
    paths = tfrecord.write(tmp_path, examples(), shards=3)
    records = tf.data.TFRecordDataset([str(path) for path in paths])
    for raw, expected in zip(records.as_numpy_iterator(), examples(), strict=True):
        feature = tf.train.Example.FromString(raw).features.feature
        assert feature["id"].bytes_list.value[0].decode() == expected.id
        assert list(feature["tokens"].int64_list.value) == expected.tokens.tolist()
        assert list(feature["weights"].float_list.value) == expected.weights.tolist()


def test_tfds_opens_our_folder(tmp_path):
    import tensorflow_datasets as tfds

    tfrecord.write(tmp_path, examples(), shards=3, description="a test")
    builder = tfds.builder_from_directory(str(tmp_path))
    assert builder.info.splits["train"].num_examples == 7
    assert builder.info.description == "a test"
    config = tfds.ReadConfig(interleave_cycle_length=1)
    rows = tfds.as_numpy(builder.as_dataset(split="train", read_config=config))
    for row, expected in zip(rows, examples(), strict=True):
        assert row["id"].decode() == expected.id
        np.testing.assert_array_equal(row["tokens"], expected.tokens)
        np.testing.assert_array_equal(row["weights"], expected.weights)
        np.testing.assert_array_equal(row["column_reference"], expected.columns["reference"])
        assert row["steps"].decode() == expected.provenance["steps"]


def test_we_read_tensorflows_records(tmp_path):
    path = tmp_path / "theirs.tfrecord"
    message = tf.train.Example()
    message.features.feature["ids"].int64_list.value.extend([0, -1, 2**40])
    message.features.feature["floats"].float_list.value.extend([0.5, -2.0])
    message.features.feature["texts"].bytes_list.value.extend([b"a", b""])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(message.SerializeToString())
    with path.open("rb") as file:
        parsed = example_proto.parse(tfrecord.read_record(file))
        assert not file.read()
    assert parsed["ids"].tolist() == [0, -1, 2**40]
    assert parsed["floats"].tolist() == [0.5, -2.0]
    assert parsed["texts"] == [b"a", b""]


def test_equal_features_give_the_bytes_of_tensorflow():
    message = tf.train.Example()
    message.features.feature["one"].int64_list.value.extend([1, 300])
    assert example_proto.serialize({"one": np.array([1, 300])}) == message.SerializeToString()
