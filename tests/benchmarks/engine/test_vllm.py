"""The runner on vLLM gives whole contexts to it and passes on what comes, without vLLM itself."""

import os
import sys
from types import SimpleNamespace
from typing import ClassVar

from benchmarks.engine import vllm
from tests.benchmarks.engine import peers


class Llm:
    made: ClassVar[dict] = {}

    def __init__(self, path, **options):
        Llm.made = options | {"path": path}

    def generate(self, prompts, sampling, use_tqdm):
        assert sampling.ignore_eos and sampling.temperature == 0.0 and not use_tqdm
        outputs = (peers.answer(p["prompt_token_ids"], sampling.max_tokens) for p in prompts)
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids)]) for ids in outputs]


def test_it_plays_the_workload(monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", dict(os.environ))  # main sets vLLM's own variables
    fake = SimpleNamespace(LLM=Llm, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    vllm.main("model", "2")
    assert peers.printed(capsys) == peers.expected(2)
    assert Llm.made["path"] == "model" and Llm.made["enable_prefix_caching"]
