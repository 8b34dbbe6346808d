"""Variants within families against torch, gradients, and real models where they are.

`EEF_SMOLLM2` and `EEF_GEMMA3` name Hugging Face folders of SmolLM2-135M-Instruct and Gemma 3 270M,
which `tests/parity/gguf_to_hf.py` makes; without one its tests are skipped.
"""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from eef_jax.models.huggingface import folder as hf  # noqa: E402
from eef_jax.models.model import Model, merge  # noqa: E402
from tests.models import paged  # noqa: E402
from tests.parity import reference  # noqa: E402

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 10_000.0,
}
LINEAR_ROPE = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}

# What released models have and the toys of the families' own suite do not.
VARIANTS = {
    "llama2": ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "llama3": ("llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False}),
    "llama linear": ("llama", {"rope_parameters": LINEAR_ROPE}),
    "mistral 0.3": ("mistral", {"sliding_window": None, "tie_word_embeddings": False}),
    "qwen2.5": ("qwen2", {"use_sliding_window": False}),
    "gemma3 4b": (
        "gemma3_text",
        {"rope_parameters": {"full_attention": LINEAR_ROPE, "sliding_attention": PLAIN_ROPE}},
    ),
    "gemma2 bounded": (
        "gemma2",
        {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0, "num_hidden_layers": 3},
    ),
    "gemma3 bounded": ("gemma3_text", {"final_logit_softcapping": 2.0}),
}

PROMPTS = (
    "The first thing that I do in the morning is",
    "In the year 1969, two people walked on the",
    "To bake a simple loaf of bread you will need",
    "The capital city of the country France is known for",
    "A small red fox ran across the snowy field and",
    "Water boils at one hundred degrees, but on a mountain",
    "The most important idea of the theory of evolution is",
    "She opened the old wooden box and found inside it",
    "def fibonacci(n):\n    if n < 2:\n        return n",
    "My favourite book of all time tells the story of",
    "If a train leaves the station at noon and travels",
    "The recipe calls for two eggs, a cup of flour",
    "Dear customer, thank you very much for your order of",
    "Once upon a time there lived an old king who",
    "The difference between a virus and a bacterium is that",
    "Question: Why is the sky blue during the day? Answer:",
    "The three states of matter that we meet every day are",
    "He looked at the map again and slowly realised that",
    "Here is a list of five things to pack for",
    "The economy of the region depends mostly on fishing and",
)


def ours(model: Model, tokens: np.ndarray) -> np.ndarray:
    """Our scores [b, t, v] of rows without padding."""
    positions = np.tile(np.arange(tokens.shape[1]), (tokens.shape[0], 1))

    # Weights are arguments: XLA would fold a real model's constants for minutes.
    @jax.jit
    def run(frozen, trainable, *batch):
        decoder = merge(model.graphdef, frozen, trainable)
        return decoder.logits(decoder(*batch))

    batch = tokens, positions, np.ones_like(tokens)
    return np.asarray(run(model.frozen, model.trainable, *batch))


def theirs(model, tokens: np.ndarray) -> np.ndarray:
    """The scores [b, t, v] that torch gives them."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens).long()).logits.float().numpy()


def tokens_of(vocab_size: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocab_size, shape).astype(np.int32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_torch(tmp_path, variant):
    model_type, changes = VARIANTS[variant]
    torch_model = reference.make(model_type, **changes)
    torch_model.save_pretrained(tmp_path)
    tokens = tokens_of(64, (2, 150))
    expected = theirs(torch_model, tokens)
    np.testing.assert_allclose(ours(hf.load(tmp_path), tokens), expected, rtol=1e-4, atol=1e-4)


def test_gradients_equal_torch(tmp_path):
    model_type, changes = VARIANTS["llama3"]
    torch_model = reference.make(model_type, **changes)
    torch_model.save_pretrained(tmp_path)
    tokens = tokens_of(64, (1, 20))
    ids = torch.from_numpy(tokens).long()
    torch_model(ids, labels=ids).loss.backward()
    model = hf.load(tmp_path)
    positions, segments = np.arange(20)[None], np.ones((1, 20), np.int32)

    def loss(trainable):
        decoder = merge(model.graphdef, model.frozen, trainable)
        scores = decoder.logits(decoder(tokens, positions, segments))[0, :-1]
        picked = jnp.take_along_axis(jax.nn.log_softmax(scores), tokens[0, 1:, None], axis=-1)
        return -picked.mean()

    grads = jax.jit(jax.grad(loss))(model.trainable)
    expected = torch_model.model.layers[1].self_attn.k_proj.weight.grad.numpy().T
    got = grads["layers"][1]["k_proj"]["weight"][...]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


# Real models: the variable that names the folder, and what it holds.
REAL = {
    "smollm2": ("EEF_SMOLLM2", "SmolLM2-135M-Instruct"),
    "gemma3": ("EEF_GEMMA3", "Gemma 3 270M"),
}


@pytest.fixture(scope="module", params=REAL)
def real(request):
    """A real model: its folder, here and in torch."""
    variable, name = REAL[request.param]
    folder = os.environ.get(variable, "")
    if not pathlib.Path(folder, "config.json").is_file():
        pytest.skip(
            f"{variable} names no Hugging Face folder of {name}: tests/parity/gguf_to_hf.py"
        )
    torch_model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return folder, hf.load(folder), torch_model.eval()


def test_a_real_models_logits_equal_torch(real):
    _, model, torch_model = real
    tokens = tokens_of(model.config.vocab_size, (2, 64))
    expected = theirs(torch_model, tokens)
    # Sums over tens of layers, of which float32 keeps seven digits: measured are differences of
    # 1.1e-4 where SmolLM2's scores reach 33, and of 3.4e-4 where Gemma's reach 131.
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(ours(model, tokens), expected, rtol=0, atol=tolerance)


def test_a_real_model_continues_prompts_as_torch_does(real):
    folder, model, torch_model = real
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # Cut to one length, so that no row needs padding.
    prompts = [tokenizer(text).input_ids for text in PROMPTS]
    tokens = np.array([ids[: min(map(len, prompts))] for ids in prompts], np.int32)
    assert len(set(map(tuple, tokens.tolist()))) == 20 and tokens.shape[1] >= 6
    expected = torch_greedy(torch_model, tokens, 64)
    np.testing.assert_array_equal(greedy(model, tokens, 64), expected)


def greedy(model: Model, tokens: np.ndarray, count: int) -> np.ndarray:
    """Each next token the likeliest, through the cache: i32[b, count]."""
    rows, length = tokens.shape
    cache, table = paged.cache(model.config, rows, length + count)

    @functools.partial(jax.jit, donate_argnames="cache")
    def extend(frozen, trainable, new, first, cache):
        decoder = merge(model.graphdef, frozen, trainable)
        positions = first + jnp.tile(jnp.arange(new.shape[1]), (rows, 1))
        hidden, cache = paged.extend(decoder, cache, new, positions, table)
        return jnp.argmax(decoder.logits(hidden[:, -1]), axis=-1)[:, None], cache

    new, found = tokens, []
    for step in range(count):
        first = 0 if step == 0 else length + step - 1
        new, cache = extend(model.frozen, model.trainable, new, first, cache)
        found.append(np.asarray(new))
    return np.concatenate(found, axis=1)


def torch_greedy(model, tokens: np.ndarray, count: int) -> np.ndarray:
    """The same by torch, with its own cache."""
    new, past, found = torch.from_numpy(tokens).long(), None, []
    with torch.no_grad():
        for _ in range(count):
            out = model(new, cache=past, use_cache=True)
            new, past = out.logits[:, -1:].argmax(-1), out.cache
            found.append(new.numpy())
    return np.concatenate(found, axis=1)
