"""PEFT folders: bit-equal round trips, refusal of unsupported adapters."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from eef_jax import sharding
from eef_jax.config.sections import LoraConfig
from eef_jax.errors import ConfigError, DataError
from eef_jax.models.huggingface import peft
from eef_jax.models.model import content_hash
from tests.models.toys import CONFIG, loud, toy

LORA = LoraConfig(rank=3, alpha=6.0, dropout=0.25, targets=("q_proj", "up_proj"), rslora=True)


def adapted(lora=LORA, **options):
    model = toy(lora, **options)
    return dataclasses.replace(model, trainable=loud(model.trainable))


@pytest.fixture
def folder(tmp_path):
    peft.save(adapted(), tmp_path / "adapter", base="some/base")
    return tmp_path / "adapter"


def rewrite(folder, **changes):
    file = folder / peft.CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_adapter_is_bit_equal_after_a_round_trip(folder):
    model = toy(peft.read_config(folder, CONFIG))
    assert model.lora == LORA
    loaded = peft.load(folder, model)
    assert str(jax.tree.structure(loaded)) == str(jax.tree.structure(model.trainable))
    assert content_hash(loaded) == content_hash(adapted().trainable)


def test_names_shapes_and_config_are_pefts(folder):
    stored = safetensors.numpy.load_file(folder / peft.WEIGHTS)
    prefix = "base_model.model.model.layers.1"
    assert stored[f"{prefix}.self_attn.q_proj.lora_A.weight"].shape == (3, 16)
    assert stored[f"{prefix}.mlp.up_proj.lora_B.weight"].shape == (24, 3)
    raw = json.loads((folder / peft.CONFIG).read_text())
    expected = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "use_rslora": True}
    assert expected.items() <= raw.items()
    assert raw["target_modules"] == ["q_proj", "up_proj"]
    assert raw["base_model_name_or_path"] == "some/base"


def test_patterns_are_written_as_the_names_they_match(tmp_path):
    peft.save(adapted(LoraConfig(rank=2, targets=(r".*\.1\.mlp\..*",))), tmp_path, base="")
    raw = json.loads((tmp_path / peft.CONFIG).read_text())
    names = [f"model.layers.1.mlp.{name}_proj" for name in ("down", "gate", "up")]
    assert raw["target_modules"] == names
    assert peft.read_config(tmp_path, CONFIG).targets == tuple(names)


def test_an_adapter_loads_onto_a_mesh(folder):
    mesh = sharding.make_mesh({"fsdp": 2, "tensor": 4})
    model = toy(LORA, mesh=mesh)
    loaded = peft.load(folder, model, mesh=mesh)
    assert content_hash(loaded) == content_hash(adapted().trainable)
    for got, like in zip(jax.tree.leaves(loaded), jax.tree.leaves(model.trainable), strict=True):
        assert got.sharding.is_equivalent_to(like.sharding, got.ndim)


def test_a_full_tuned_model_has_no_adapter_to_write(tmp_path):
    with pytest.raises(ConfigError, match="write it merged"):
        peft.save(toy(), tmp_path / "adapter", base="")
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_of_another_base_is_refused(folder):
    with pytest.raises(DataError, match=r"tuned on a base with the hash .* load the base"):
        peft.load(folder, toy(LORA, seed=1))
    # The same base in another type has another hash: nothing can be told.
    peft.load(folder, toy(LORA, seed=1, param_dtype="bfloat16"))


def test_an_adapter_of_another_shape_names_all_differences(folder):
    other = toy(dataclasses.replace(LORA, rank=2, targets=("q_proj", "v_proj")))
    with pytest.raises(DataError) as refusal:
        peft.load(folder, other)
    told = str(refusal.value)
    assert "q_proj.lora_A.weight: got [3, 16], expected [2, 16]" in told
    assert "missing: base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight" in told
    assert "unexpected: base_model.model.model.layers.1.mlp.up_proj.lora_B.weight" in told


def test_modules_that_the_base_lacks_are_named(folder):
    with pytest.raises(DataError, match=r"adapts 2 modules .* model\.layers\.1\."):
        peft.read_config(folder, dataclasses.replace(CONFIG, n_layers=1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "'IA3', expected 'LORA'"),
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_tomorrows_adapter": True}, "use_tomorrows_adapter = True"),
        ({"r": None}, "describes no adapter"),
        ({"r": 0}, "describes no adapter"),
    ],
)
def test_other_kinds_of_adapters_are_refused(folder, change, said):
    rewrite(folder, **change)
    with pytest.raises(DataError, match=said):
        peft.read_config(folder, CONFIG)


@pytest.mark.parametrize(
    "start", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "tomorrows"]
)
def test_adapters_whose_start_changed_the_base_are_refused(folder, start):
    rewrite(folder, init_lora_weights=start)
    with pytest.raises(DataError, match=rf"init_lora_weights = '{start}'.*merge_and_unload"):
        peft.read_config(folder, CONFIG)


@pytest.mark.parametrize("start", [None, True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_adapters_that_left_the_base_as_it_was_are_read(folder, start):
    rewrite(folder, init_lora_weights=start, eva_config={"rho": 2.0}, exclude_modules=["lm_head"])
    assert peft.read_config(folder, CONFIG) == LORA


def rename(folder, change, **more):
    file = folder / peft.WEIGHTS
    values = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({change(name): v for name, v in values.items()} | more, file)


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.replace(".weight", ".my-run_2.weight"),
        lambda name: name.removeprefix("base_model.model."),
        lambda name: name.removeprefix("base_model.model.").replace(".weight", ".default.weight"),
    ],
    ids=["default", "another name", "no prefix", "neither"],
)
def test_pefts_variants_of_names_are_read(folder, change):
    rename(folder, change)
    loaded = peft.load(folder, toy(peft.read_config(folder, CONFIG)))
    assert content_hash(loaded) == content_hash(adapted().trainable)


def test_several_adapters_in_one_file_are_refused(folder):
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A"
    value = safetensors.numpy.load_file(folder / peft.WEIGHTS)[f"{name}.weight"]
    rename(folder, lambda name: name, **{f"{name}.reference.weight": value})
    with pytest.raises(DataError, match=r"holds several adapters, such as .*selected_adapters"):
        peft.read_config(folder, CONFIG)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.embed_tokens.weight", "a whole embedding table"),
        ("lm_head.weight", "a whole output head"),
        ("lm_head.modules_to_save.default.weight", "a whole output head"),
        ("model.norm.modules_to_save.weight", "a module that was tuned as a whole"),
        ("model.embed_tokens.lora_embedding_A", "an adapter of the embeddings"),
        ("model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA's magnitudes"),
        ("model.layers.0.self_attn.q_proj.lora_B.bias", "a bias of the adapter"),
        ("something.weight", "no LoRA matrix"),
    ],
)
def test_other_tensors_beside_an_adapter_are_said_for_what_they_are(folder, name, said):
    extra = {f"base_model.model.{name}": np.zeros((2, 2), np.float32)}
    rename(folder, lambda name: name, **extra)
    with pytest.raises(DataError, match=rf"{name} \({said}.*merge the adapter"):
        peft.read_config(folder, CONFIG)


def test_missing_files_are_named(folder):
    (folder / peft.WEIGHTS).unlink()
    with pytest.raises(DataError, match=r"adapter_model\.safetensors is missing"):
        peft.read_config(folder, CONFIG)
    (folder / "adapter_model.bin").touch()
    with pytest.raises(DataError, match=r"has adapter_model\.bin \(PyTorch's pickles\)"):
        peft.read_config(folder, CONFIG)
    (folder / peft.CONFIG).unlink()
    with pytest.raises(DataError, match=r"adapter_config\.json is missing"):
        peft.read_config(folder, CONFIG)
