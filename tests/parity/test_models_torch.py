"""The decoder against Hugging Face's in torch: tiny random weights, and SmolLM2-135M where it is.

`EEF_SMOLLM2` names a Hugging Face folder of SmolLM2-135M-Instruct; without it that part is skipped.
"""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from eef_jax.models import base, hf  # noqa: E402
from eef_jax.models.base import LoraConfig  # noqa: E402
from eef_jax.models.cache import init_cache  # noqa: E402

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 10_000.0,
}
VARIANTS = {
    "llama2": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "llama3": {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False},
    "smollm2": {"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}},
}


def reference(variant: str) -> transformers.LlamaForCausalLM:
    options = {"num_key_value_heads": 2, "tie_word_embeddings": True, **VARIANTS[variant]}
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=256,
        initializer_range=0.3,  # large enough that every part shows in the logits
        **options,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def torch_logits(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens).long()).logits.float().numpy()


def jax_logits(model: base.Model, tokens: np.ndarray) -> np.ndarray:
    positions = np.tile(np.arange(tokens.shape[1]), (tokens.shape[0], 1))
    decoder = model.decoder
    run = jax.jit(lambda *batch: decoder.logits(decoder(*batch)))
    return np.asarray(run(tokens, positions, np.ones_like(tokens)))


def tokens_of(vocab_size: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocab_size, shape).astype(np.int32)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_logits_equal_torch(tmp_path, variant):
    torch_model = reference(variant)
    torch_model.save_pretrained(tmp_path)
    tokens = tokens_of(96, (2, 150))
    got = jax_logits(hf.load(tmp_path), tokens)
    np.testing.assert_allclose(got, torch_logits(torch_model, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_transformers_loads_what_is_saved(tmp_path, variant):
    reference(variant).save_pretrained(tmp_path / "theirs")
    model = hf.load(tmp_path / "theirs", lora=LoraConfig(rank=2))
    hf.save(model, tmp_path / "ours")
    loaded, info = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    tokens = tokens_of(96, (1, 40))
    got = torch_logits(loaded.eval(), tokens)
    np.testing.assert_allclose(got, jax_logits(model, tokens), rtol=1e-4, atol=1e-4)


def test_gradients_equal_torch(tmp_path):
    torch_model = reference("llama3")
    torch_model.save_pretrained(tmp_path)
    tokens = tokens_of(96, (1, 20))
    ids = torch.from_numpy(tokens).long()
    torch_model(ids, labels=ids).loss.backward()
    model = hf.load(tmp_path)
    positions, segments = np.arange(20)[None], np.ones((1, 20), np.int32)

    def loss(trainable):
        decoder = base.merge(model.graphdef, model.frozen, trainable)
        scores = decoder.logits(decoder(tokens, positions, segments))[0, :-1]
        picked = jnp.take_along_axis(jax.nn.log_softmax(scores), tokens[0, 1:, None], axis=-1)
        return -picked.mean()

    grads = jax.jit(jax.grad(loss))(model.trainable)
    theirs = torch_model.model.layers[1].self_attn.k_proj.weight.grad.numpy().T
    ours = grads["layers"][1]["k_proj"]["weight"][...]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_smollm2_logits_equal_torch():
    folder = os.environ.get("EEF_SMOLLM2", "")
    if not pathlib.Path(folder, "config.json").is_file():
        pytest.skip("EEF_SMOLLM2 names no Hugging Face folder of SmolLM2-135M-Instruct")
    model = hf.load(folder)
    torch_model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = tokens_of(model.config.vocab_size, (2, 64))
    expected = torch_logits(torch_model.eval(), tokens)
    # 30 layers, scores up to 33: the measured difference is 1.1e-4.
    np.testing.assert_allclose(jax_logits(model, tokens), expected, rtol=0, atol=4e-4)
    # Next tokens, sampled from the cache, are torch's too.
    cache = init_cache(model.config, slots=2, max_context=64)
    decoder = model.decoder
    run = jax.jit(lambda *args: decoder.extend(*args, length=64))
    hidden, _ = run(tokens, np.tile(np.arange(64), (2, 1)), None, cache)
    best = np.argmax(decoder.logits(hidden), axis=-1)
    assert np.mean(best == expected.argmax(-1)) > 0.99
