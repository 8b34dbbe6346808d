"""The runners of benchmarks on torch, on a tiny Llama: what they compute, not how fast."""

import functools
import io
import json
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from benchmarks.engine import hf, workload  # noqa: E402
from benchmarks.train import torch_peft  # noqa: E402

SMALL: dict[str, Any] = {
    "states": 3,
    "turns": 2,
    "prompt": 6,
    "action": 4,
    "observation": 3,
    "ids": (1, 96),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("base")
    transformers.LlamaForCausalLM(config).save_pretrained(made)
    return made


def test_generate_plays_the_workload_as_full_forward_passes_would(folder, monkeypatch, capsys):
    small = functools.partial(workload.Workload, **SMALL)
    monkeypatch.setattr(workload, "Workload", small)
    hf.main(str(folder), "2")
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @torch.no_grad()
    def generate(contexts):
        """Greedy, each context by itself, without padding and without a cache."""
        found = []
        for ids in map(list, contexts):
            for _ in range(SMALL["action"]):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            found.append(ids[-SMALL["action"] :])
        return found

    work = small(experts=2)
    contexts = {key: work.start(*key) for key in work.episodes()}
    expected = workload.play_by_turn(contexts, work, generate)
    assert result["outputs"] == [[*key, expected[key]] for key in sorted(expected)]


def test_batches_are_padded_and_unlearned_tokens_have_no_label():
    short, long = (
        {"tokens": list(range(1, n)), "learned": [False] + [True] * (n - 2)} for n in (4, 6)
    )
    batch = torch_peft.collate([short, long])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, -100], [-100, 2, 3, 4, 5]]


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_peft_trains_on_each_line(folder, monkeypatch, capsys, remat):
    rng = np.random.default_rng(0)
    examples = [
        {"tokens": rng.integers(1, 96, size).tolist(), "learned": [False] + [True] * (size - 1)}
        for size in (5, 9, 7, 9)
    ]
    job = {"model": str(folder), "rank": 2, "threads": 1, "remat": remat, "peer_batch_size": 2}
    lines = [job, *[examples] * 8]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{json.dumps(x)}\n" for x in lines)))
    threads = torch.get_num_threads()
    torch_peft.main()
    torch.set_num_threads(threads)
    versions, *answers = map(json.loads, capsys.readouterr().out.splitlines())
    assert versions == {"versions": {"torch": torch.__version__}}
    assert {(one["steps"], one["padded_tokens"]) for one in answers} == {(2, 2 * (9 + 9))}
    assert answers[-1]["loss"] < answers[0]["loss"]
