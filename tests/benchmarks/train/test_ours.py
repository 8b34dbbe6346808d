"""Our runner trains on what it is sent and says how long it took."""

import io
import json
import sys

from benchmarks.train import ours
from eef_jax.models.huggingface import folder as hf
from tests.train import toy


def test_it_answers_each_line(tmp_path, monkeypatch, capsys):
    hf.save(toy.model(None), tmp_path)
    job = {"model": str(tmp_path), "rank": 2, "batch_size": 8, "seq_len": 16}
    slices = [
        {"tokens": example.tokens.tolist(), "learned": (example.weights > 0).tolist()}
        for example in toy.examples(8)
    ]
    lines = [job | {"max_loss_positions": 16}, slices, slices]
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines))
    )
    ours.main()
    versions, first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "jax" in versions["versions"]
    assert first["padded_tokens"] == first["steps"] * 8 * 16 > 0
    assert second["loss"] < first["loss"]  # the second slice is the first one, learned before
