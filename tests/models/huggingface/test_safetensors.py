"""Safetensors files: what the library reads and writes, parts, object stores, damage."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from eef_jax.errors import DataError
from eef_jax.models.huggingface import safetensors as safetensors_lib
from tests import object_store

RNG = np.random.default_rng(0)
VALUES = {
    "a": RNG.standard_normal((6, 8), np.float32),
    "b": RNG.standard_normal(5, np.float32).astype(ml_dtypes.bfloat16),
    "c": np.zeros((0, 3), np.float16),
    "d": RNG.standard_normal((4, 4), np.float32),
}


def plan():
    return {n: safetensors_lib.TensorSpec(dtype=v.dtype, shape=v.shape) for n, v in VALUES.items()}


def write(folder, **options):
    safetensors_lib.write_folder(epath.Path(folder), plan(), VALUES.__getitem__, **options)


def test_the_library_reads_what_is_written(tmp_path):
    write(tmp_path)
    stored = safetensors.numpy.load_file(tmp_path / safetensors_lib.WEIGHTS)
    assert stored.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(stored[name], value)
    assert [file.name for file in tmp_path.iterdir()] == [safetensors_lib.WEIGHTS]


def test_what_the_library_writes_is_read_in_parts(tmp_path):
    safetensors.numpy.save_file(VALUES, tmp_path / safetensors_lib.WEIGHTS, metadata={"by": "test"})
    found, metadata = safetensors_lib.open_file(epath.Path(tmp_path / safetensors_lib.WEIGHTS))
    assert metadata == {"by": "test"}
    np.testing.assert_array_equal(found["a"].read(), VALUES["a"])
    np.testing.assert_array_equal(found["b"].read(), VALUES["b"])
    part = slice(1, 3), slice(4, 8)
    np.testing.assert_array_equal(found["a"].read(part), VALUES["a"][part])
    assert not found["a"].read().flags.writeable


def test_large_models_are_cut_into_files_with_an_index(tmp_path):
    write(tmp_path, max_shard=200)
    names = {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    assert {file.name for file in tmp_path.iterdir()} == {*names, safetensors_lib.INDEX}
    index = json.loads((tmp_path / safetensors_lib.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(v.nbytes for v in VALUES.values())
    assert set(index["weight_map"]) == set(VALUES)
    found = safetensors_lib.open_folder(epath.Path(tmp_path))
    for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name].read(), value)
    write(tmp_path)  # a single file is not hidden by the older index
    assert (
        safetensors_lib.open_folder(epath.Path(tmp_path))["a"].file.name == safetensors_lib.WEIGHTS
    )


def test_object_stores_work_like_disks(monkeypatch):
    object_store.install(monkeypatch)
    folder = epath.Path("gs://bucket/model")
    write(folder, max_shard=200)
    found = safetensors_lib.open_folder(folder)
    for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name].read(), value)
    part = slice(1, 3), slice(4, 8)
    np.testing.assert_array_equal(found["a"].read(part), VALUES["a"][part])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:4],
        lambda data: data[:40],
        lambda data: data[:-1],
        lambda data: b"\xff" * len(data),
        lambda data: data.replace(b'"F32"', b'"F99"'),
        lambda data: data.replace(b"[6, 8]", b"[6, 9]"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage):
    write(tmp_path)
    file = tmp_path / safetensors_lib.WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"model\.safetensors is damaged"):
        safetensors_lib.open_folder(epath.Path(tmp_path))


def test_an_index_without_files_is_refused(tmp_path):
    (tmp_path / safetensors_lib.INDEX).write_text("{}")
    with pytest.raises(DataError, match="no weight_map"):
        safetensors_lib.open_folder(epath.Path(tmp_path))


def test_an_index_that_names_another_place_is_refused(tmp_path):
    write(tmp_path, max_shard=200)
    file = tmp_path / safetensors_lib.INDEX
    index = json.loads(file.read_text())
    _, last = sorted(set(index["weight_map"].values()))
    index["weight_map"]["a"] = last
    file.write_text(json.dumps(index))
    with pytest.raises(DataError, match=rf"1 of its 4 tensors .* such as a in {last}"):
        safetensors_lib.open_folder(epath.Path(tmp_path))


def test_a_single_file_beside_another_models_index_is_refused(tmp_path):
    write(tmp_path, max_shard=200)
    safetensors.numpy.save_file(VALUES, tmp_path / safetensors_lib.WEIGHTS)
    with pytest.raises(DataError, match=r"which may be two models: move model\.safetensors out"):
        safetensors_lib.open_folder(epath.Path(tmp_path))


def test_an_index_of_the_single_file_is_read(tmp_path):
    write(tmp_path)
    places = dict.fromkeys(VALUES, safetensors_lib.WEIGHTS)
    (tmp_path / safetensors_lib.INDEX).write_text(json.dumps({"weight_map": places}))
    assert safetensors_lib.open_folder(epath.Path(tmp_path)).keys() == VALUES.keys()


def test_a_leftover_tensor_is_read_from_where_the_index_says(tmp_path):
    write(tmp_path, max_shard=200)
    index = json.loads((tmp_path / safetensors_lib.INDEX).read_text())["weight_map"]
    other = next(name for name in set(index.values()) if name != index["a"])
    held = safetensors.numpy.load_file(tmp_path / other)
    safetensors.numpy.save_file({**held, "a": VALUES["a"] + 1}, tmp_path / other)
    found = safetensors_lib.open_folder(epath.Path(tmp_path))
    np.testing.assert_array_equal(found["a"].read(), VALUES["a"])


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write(tmp_path)
    before = (tmp_path / safetensors_lib.WEIGHTS).read_bytes()

    def broken(name):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        safetensors_lib.write_file(epath.Path(tmp_path / safetensors_lib.WEIGHTS), plan(), broken)
    assert (tmp_path / safetensors_lib.WEIGHTS).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [safetensors_lib.WEIGHTS]
