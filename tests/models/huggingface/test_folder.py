"""Hugging Face folders: bit-equal round trips, and every faulty tensor named at once."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from eef_jax import sharding
from eef_jax.config.sections import LoraConfig
from eef_jax.errors import ConfigError, DataError
from eef_jax.models.config import ModelOptions
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.huggingface import safetensors as safetensors_lib
from eef_jax.models.model import content_hash
from eef_jax.models.rope import Llama3Scaling
from tests.models.toys import CONFIG, forward, loud, rows, toy

SCALED = Llama3Scaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64
)


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_loaded_weights_are_bit_equal(tmp_path, tied, param_dtype):
    config = dataclasses.replace(
        CONFIG, tie_embeddings=tied, rope_scaling=SCALED, eos_token_id=(1, 2)
    )
    model = toy(config=config, param_dtype=param_dtype)
    hf.save(model, tmp_path)
    again = hf.load(tmp_path, ModelOptions(param_dtype=param_dtype))
    assert again.config == config
    assert content_hash(again.trainable) == content_hash(model.trainable)
    adapted = hf.load(tmp_path, ModelOptions(param_dtype=param_dtype, lora=LoraConfig(rank=2)))
    assert content_hash(adapted.frozen) == content_hash(model.trainable)
    assert not list(tmp_path.glob("*.partial"))


def test_the_adapter_is_merged_when_saved(tmp_path):
    model = toy(LoraConfig(rank=2))
    model = dataclasses.replace(model, trainable=loud(model.trainable))
    hf.save(model, tmp_path)
    batch = rows(2, 5)
    expected = forward(model.decoder)(*batch)
    got = forward(hf.load(tmp_path).decoder)(*batch)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_half_precision_folders_are_half_the_size_and_load_as_float32(tmp_path):
    model = toy()
    hf.save(model, tmp_path, dtype="float16")
    stored = safetensors.numpy.load_file(tmp_path / safetensors_lib.WEIGHTS)
    assert {value.dtype for value in stored.values()} == {np.dtype("float16")}
    loaded = jax.tree.leaves(hf.load(tmp_path).trainable)
    for got, expected in zip(loaded, jax.tree.leaves(model.trainable), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_sharded_files_load_by_their_index_onto_a_mesh(tmp_path, monkeypatch):
    model = toy()
    hf.save(model, tmp_path, max_shard=2000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    mesh = sharding.make_mesh({"fsdp": 2, "tensor": 4})
    read = []
    monkeypatch.setattr(
        safetensors_lib.StoredTensor, "read", _recording(safetensors_lib.StoredTensor.read, read)
    )
    loaded = hf.load(tmp_path, ModelOptions(lora=LoraConfig(rank=2)), mesh=mesh)
    assert content_hash(loaded.frozen) == content_hash(model.trainable)
    for state in (loaded.frozen, loaded.trainable):
        jax.tree.map(
            lambda leaf, expected: np.testing.assert_(
                leaf.sharding.is_equivalent_to(expected, leaf.ndim)
            ),
            state,
            sharding.tree_shardings(state, mesh),
        )
    # Each device's part is read by itself: an eighth of a matrix, never a whole one.
    assert {size for name, size in read if name == (24, 16)} == {24 * 16 // 8}


def _recording(read, sizes):
    def recorded(stored, index=()):
        part = read(stored, index)
        sizes.append((stored.shape, part.size))
        return part

    return recorded


def test_the_seed_alone_makes_the_adapter(tmp_path):
    hf.save(toy(), tmp_path)
    first, second, other = (
        content_hash(hf.load(tmp_path, ModelOptions(lora=LoraConfig(rank=2)), seed=seed).trainable)
        for seed in (0, 0, 1)
    )
    assert first == second != other


def test_every_faulty_tensor_is_named_at_once(tmp_path):
    hf.save(toy(), tmp_path)
    file = tmp_path / safetensors_lib.WEIGHTS
    values = safetensors.numpy.load_file(file)
    del values["model.norm.weight"], values["model.layers.1.mlp.up_proj.weight"]
    values["model.layers.0.self_attn.q_proj.bias"] = np.zeros(3, np.float32)
    values["model.embed_tokens.weight"] = np.zeros((5, 16), np.float32)
    values["lm_head.weight"] = np.zeros((5, 16), np.float32)  # a tied head's copy is fine
    safetensors.numpy.save_file(values, file)
    with pytest.raises(DataError) as caught:
        hf.load(tmp_path)
    said = str(caught.value)
    assert "missing: model.norm.weight" in said
    assert "missing: model.layers.1.mlp.up_proj.weight" in said
    assert "unexpected: model.layers.0.self_attn.q_proj.bias" in said
    assert "model.embed_tokens.weight: got [5, 16], expected [64, 16]" in said
    assert "lm_head" not in said


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"config\.json is missing"):
        hf.load(tmp_path)
    hf.save(toy(), tmp_path)
    (tmp_path / safetensors_lib.WEIGHTS).write_bytes(b"\x08" * 100)
    with pytest.raises(DataError, match="damaged"):
        hf.load(tmp_path)
    (tmp_path / safetensors_lib.WEIGHTS).unlink()
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        hf.load(tmp_path)


def test_a_model_type_that_no_family_serves_is_refused(tmp_path):
    hf.save(toy(), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "lama"}))
    with pytest.raises(ConfigError, match="did you mean llama"):
        hf.load(tmp_path)
