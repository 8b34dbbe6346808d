"""Adapters and merged exports against PEFT and transformers in torch, and back from there."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft_library = pytest.importorskip("peft")

from eef_jax.config.sections import LoraConfig  # noqa: E402
from eef_jax.errors import DataError  # noqa: E402
from eef_jax.models.config import ModelOptions  # noqa: E402
from eef_jax.models.huggingface import folder as hf  # noqa: E402
from eef_jax.models.huggingface import peft  # noqa: E402
from eef_jax.models.model import content_hash  # noqa: E402
from tests.models.toys import forward, loud  # noqa: E402

# PEFT's own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

ADAPTERS = {
    "plain": LoraConfig(rank=3, alpha=5.0),
    "rslora": LoraConfig(rank=4, alpha=8.0, rslora=True, targets=("q_proj", "down_proj")),
    "pattern": LoraConfig(rank=2, targets=(r".*\.1\..*", "o_proj")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random Llama as transformers saves it."""
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("base")
    transformers.LlamaForCausalLM(config).save_pretrained(made)
    return made


def adapted(folder, lora):
    model = hf.load(folder, ModelOptions(lora=lora))
    return dataclasses.replace(model, trainable=loud(model.trainable))


def tokens():
    return np.random.default_rng(0).integers(0, 96, (2, 20)).astype(np.int32)


def ours(model):
    ids = tokens()
    decoder, positions = model.decoder, np.tile(np.arange(20), (2, 1))
    return np.asarray(decoder.logits(forward(decoder)(ids, positions, np.ones_like(ids))))


def theirs(model):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(tokens()).long()).logits.numpy()


def torch_base(folder):
    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_an_exported_adapter_gives_our_logits_in_peft(folder, tmp_path, kind):
    model = adapted(folder, ADAPTERS[kind])
    peft.save(model, tmp_path, base=str(folder))
    loaded = peft_library.PeftModel.from_pretrained(torch_base(folder), tmp_path)
    np.testing.assert_allclose(theirs(loaded), ours(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_an_adapter_goes_to_peft_and_back_bit_for_bit(folder, tmp_path, kind):
    model = adapted(folder, ADAPTERS[kind])
    peft.save(model, tmp_path / "ours", base=str(folder))
    loaded = peft_library.PeftModel.from_pretrained(torch_base(folder), tmp_path / "ours")
    loaded.save_pretrained(tmp_path / "theirs")
    before, after = (
        safetensors.numpy.load_file(tmp_path / name / peft.WEIGHTS) for name in ("ours", "theirs")
    )
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    config = peft.read_config(tmp_path / "theirs", model.config)
    again = hf.load(folder, ModelOptions(lora=config))
    returned = peft.load(tmp_path / "theirs", again)
    assert content_hash(returned) == content_hash(model.trainable)


def test_an_adapter_made_by_peft_gives_its_logits_here(folder, tmp_path):
    config = peft_library.LoraConfig(
        r=4,
        lora_alpha=6,
        lora_dropout=0.1,
        use_rslora=True,
        target_modules=r".*layers\.1\.(self_attn\.[qv]|mlp\.up)_proj",
        init_lora_weights=False,  # else B is 0
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(1)
    made = peft_library.get_peft_model(torch_base(folder), config)
    made.save_pretrained(tmp_path)
    lora = peft.read_config(tmp_path, hf.read_config(folder))
    model = hf.load(folder, ModelOptions(lora=lora))
    model = dataclasses.replace(model, trainable=peft.load(tmp_path, model))
    assert model.lora is not None and model.lora.dropout == 0.1
    np.testing.assert_allclose(ours(model), theirs(made), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*changes the base weights:UserWarning")
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_changed_its_base_is_refused_until_peft_converts_it(
    folder, tmp_path, start
):
    config = peft_library.LoraConfig(
        r=4, target_modules=["q_proj"], init_lora_weights=start, task_type="CAUSAL_LM"
    )
    made = peft_library.get_peft_model(torch_base(folder), config)
    made.save_pretrained(tmp_path / "start")
    with torch.no_grad():  # a step of training
        for name, value in made.named_parameters():
            if "lora_" in name:
                value.add_(0.1)
    made.save_pretrained(tmp_path / "tuned")
    with pytest.raises(DataError, match="path_initial_model_for_weight_conversion"):
        peft.read_config(tmp_path / "tuned", hf.read_config(folder))
    expected = theirs(made)
    rewritten = json.loads((tmp_path / "start" / peft.CONFIG).read_text())
    (tmp_path / "start" / peft.CONFIG).write_text(
        json.dumps(rewritten | {"init_lora_weights": True})
    )
    made.save_pretrained(
        tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    lora = peft.read_config(tmp_path / "plain", hf.read_config(folder))
    model = hf.load(folder, ModelOptions(lora=lora))
    model = dataclasses.replace(model, trainable=peft.load(tmp_path / "plain", model))
    np.testing.assert_allclose(ours(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("max_shard", [20_000, 10**9])
def test_a_merged_export_gives_our_logits_in_transformers(folder, tmp_path, max_shard):
    model = adapted(folder, ADAPTERS["plain"])
    raw = json.loads((folder / hf.CONFIG).read_text())
    hf.save(model, tmp_path, config=raw, max_shard=max_shard)
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    np.testing.assert_allclose(theirs(loaded), ours(model), rtol=1e-4, atol=1e-4)
