"""The runner on Tunix writes contexts as texts, in full batches, without Tunix itself."""

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks.engine import tunix
from tests.benchmarks.engine import peers

SHAPE = {
    "num_hidden_layers": 2,
    "vocab_size": 50_000,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "head_dim": 4,
    "num_key_value_heads": 2,
    "rope_theta": 123.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


class Sampler:
    def __init__(self, model, tokenizer, cache):
        self._tokenizer = tokenizer
        assert (cache.num_layers, cache.num_kv_heads, cache.head_dim) == (2, 2, 4)

    def __call__(self, texts, *, max_generation_steps, max_prompt_length, eos_tokens, **_):
        assert len(texts) == tunix.BATCH and eos_tokens == [49_999]
        contexts = [self._tokenizer.encode(text) for text in texts]
        assert max(map(len, contexts)) <= max_prompt_length
        # One more than asked for, which the runner cuts off.
        return SimpleNamespace(
            tokens=[peers.answer(ids, max_generation_steps + 1) for ids in contexts]
        )


@pytest.fixture
def models(monkeypatch):
    """Tunix's modules; those of the model are returned."""
    model: dict[str, Any] = {
        "ModelConfig": SimpleNamespace,
        "apply_rope": lambda rope_theta=1_000_000: rope_theta,
    }
    contents: dict[str, dict[str, Any]] = {
        "tunix": {},
        "tunix.generate": {},
        "tunix.generate.sampler": {"CacheConfig": SimpleNamespace, "Sampler": Sampler},
        "tunix.models": {},
        "tunix.models.llama3": {},
        "tunix.models.llama3.model": model,
        "tunix.models.llama3.params": {"create_model_from_safe_tensors": lambda *_, dtype: None},
    }
    for name, content in contents.items():
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        vars(sys.modules[name]).update(content)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, sys.modules[name])
    return sys.modules["tunix.models.llama3.model"]


def test_it_plays_the_workload(models, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    tunix.main(str(tmp_path), "2")
    assert peers.printed(capsys) == peers.expected(2)
    assert models.apply_rope() == 123.0


def test_texts_are_ids():
    numbers = tunix.Numbers(7)
    assert numbers.encode(numbers.decode([3, 0, 12])) == [3, 0, 12]
    assert numbers.eos_id() == 7
