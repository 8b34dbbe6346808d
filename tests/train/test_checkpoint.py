"""Checkpoints: exact round trips, onto the mesh, and errors with the next action."""

import shutil

import jax
import numpy as np
import pytest

from eef_jax.config.sections import LoraConfig
from eef_jax.errors import DataError
from eef_jax.models.model import content_hash
from eef_jax.sharding import make_mesh
from eef_jax.train import checkpoint
from eef_jax.train import state as state_lib
from eef_jax.train.optim import make_optimizer
from tests import emulator
from tests.train import toy

BASE = "nano"


def note(**fields):
    frozen = toy.model().frozen
    return checkpoint.Metadata(
        **{"base": BASE, "base_hash": content_hash(frozen), "lora": toy.LORA} | fields
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the adapter alone, and the hash of its base."""
    path = tmp_path_factory.mktemp("checkpoint") / "tuned"
    metadata = note(step=3, config_hash="abc", facts={"score": 0.5})
    checkpoint.save(path, toy.model().trainable, metadata)
    return path, metadata.base_hash


def bits(tree):
    return [
        np.asarray(jax.random.key_data(leaf) if leaf.dtype.name.startswith("key") else leaf)
        for leaf in jax.tree.leaves(tree)
    ]


def assert_same_bits(left, right):
    assert str(jax.tree.structure(left)) == str(jax.tree.structure(right))
    for a, b in zip(bits(left), bits(right), strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters_and_metadata_round_trip(saved):
    path, base_hash = saved
    like = jax.tree.map(np.zeros_like, toy.model().trainable)
    like = jax.device_put(like, jax.devices()[0])
    trainable, metadata = checkpoint.load_trainable(path, like, base_hash=base_hash)
    assert_same_bits(trainable, toy.model().trainable)
    assert metadata == note(step=3, config_hash="abc", facts={"score": 0.5})
    assert isinstance(metadata.lora, LoraConfig)


def test_a_bucket_is_like_a_disk(bucket, saved):
    # TensorStore writes the arrays there, etils the rest.
    local, base_hash = saved
    path = f"{bucket}/run/tune/checkpoint"
    checkpoint.save(path, toy.model().trainable, note(step=1))
    checkpoint.save(path, toy.model().trainable, note(step=2))  # replaces the one that is there
    copied = emulator.upload(local, f"{bucket}/copy")
    like = jax.device_put(toy.model().trainable, jax.devices()[0])
    for where, step in ((path, 2), (copied, 3)):
        trainable, metadata = checkpoint.load_trainable(where, like, base_hash=base_hash)
        assert_same_bits(trainable, toy.model().trainable)
        assert metadata.step == step
    with pytest.raises(DataError, match=f"there is no checkpoint at {bucket}/none"):
        checkpoint.read_metadata(f"{bucket}/none")


def test_parameters_are_restored_onto_a_mesh(saved):
    path, base_hash = saved
    mesh = make_mesh({"fsdp": 2, "tensor": 4})
    optimizer = make_optimizer(toy.OPTIMIZER, 1)
    like = state_lib.create(toy.model(), optimizer, mesh=mesh, seed=0).trainable
    trainable, _ = checkpoint.load_trainable(path, like, base_hash=base_hash)
    assert_same_bits(trainable, toy.model().trainable)
    for got, expected in zip(jax.tree.leaves(trainable), jax.tree.leaves(like), strict=True):
        assert got.sharding == expected.sharding


def test_other_frozen_weights_are_refused(saved):
    with pytest.raises(DataError, match=r"tuned on the frozen weights nano .* load the base"):
        checkpoint.load_trainable(saved[0], toy.model().trainable, base_hash="0" * 64)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no checkpoint at .*nothing"):
        checkpoint.read_metadata(tmp_path / "nothing")


def test_another_adapter_is_refused_with_all_differences(saved):
    path, base_hash = saved
    other = toy.model(LoraConfig(rank=2, targets=("q_proj", "k_proj"))).trainable
    with pytest.raises(DataError) as refusal:
        checkpoint.load_trainable(path, other, base_hash=base_hash)
    message = str(refusal.value)
    assert "missing: layers.0.k_proj.lora_a" in message
    assert "unexpected: layers.0.down_proj.lora_b" in message
    assert "got [16, 4], expected [16, 2]" in message


def test_a_checkpoint_without_training_state_cannot_be_continued(saved):
    like = state_lib.abstract_state(
        toy.model(), make_optimizer(toy.OPTIMIZER, 1), mesh=toy.one_device()
    )
    with pytest.raises(DataError, match="holds trainable but no 'training'"):
        checkpoint.load_training(saved[0], like)


def test_every_file_is_checked_before_the_arrays_are_loaded(saved, tmp_path):
    path, base_hash = saved
    like = jax.device_put(toy.model().trainable, jax.devices()[0])
    for victim in sorted(one for one in path.rglob("*") if one.is_file()):
        copy = tmp_path / "copy"
        shutil.copytree(path, copy)
        changed = copy / victim.relative_to(path)
        data = changed.read_bytes()
        changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"x")
        with pytest.raises(DataError, match=r"(was changed|not valid JSON).*move the folder"):
            checkpoint.load_trainable(copy, like, base_hash=base_hash)
        shutil.rmtree(copy)


@pytest.mark.parametrize("victim", ["arrays", "array metadata", "folder metadata"])
def test_damage_is_a_data_error(tmp_path, victim):
    path = tmp_path / "damaged"
    checkpoint.save(path, toy.model().trainable, note())
    files = {
        "arrays": next(file for file in path.glob("trainable/**/d/*")),
        "array metadata": path / "trainable" / "_METADATA",
        "folder metadata": path / "_CHECKPOINT_METADATA",
    }
    data = files[victim].read_bytes()
    files[victim].write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError):
        checkpoint.load_trainable(path, toy.model().trainable, base_hash=note().base_hash)
