"""Tokens of the training examples: their weights, and their texts by the base's own tokenizer."""

import numpy as np

from eef_jax.data import tfrecord
from eef_jax.report.page import tokens
from eef_jax.report.run import read
from eef_jax.types import Example
from tests import toyrun


def run_with(tmp_path, **config):
    work = toyrun.make(tmp_path / "run", config=toyrun.CONFIG | config, until="round_0/tune")
    return read(work)


def test_examples_come_with_runs_of_weights(tmp_path):
    run = run_with(tmp_path)
    assert list(tokens.examples(run, 0)) == []  # a hand-made run without a data set
    example = Example(
        id="a:s0@0",
        tokens=np.array([5, 6, 7], np.int32),
        weights=np.array([0, 0, 1], np.float32),
        provenance=dict.fromkeys(tfrecord.PROVENANCE, ""),
    )
    tfrecord.write(run.work.stage("round_0/select").folder / "dataset", [example])
    assert list(tokens.examples(run, 0)) == [("a:s0@0", [5, 6, 7], [[2, 0.0], [1, 1.0]])]


def test_texts_by_the_base_that_ships(tmp_path):
    texts = tokens.Texts(run_with(tmp_path))
    assert {texts.of(n) for n in range(40)} > {"<|user|>", "<|assistant|>", "<|end|>"}


def test_without_the_tokenizer_ids_are_shown(tmp_path, monkeypatch):
    for path in (str(tmp_path / "gone"), "org/not-in-the-cache"):
        folder = tmp_path / path.replace("/", "-")
        folder.mkdir()
        texts = tokens.Texts(run_with(folder, model=toyrun.CONFIG["model"] | {"path": path}))
        assert texts.of(17) == "<17>"
