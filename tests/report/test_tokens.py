"""Tokens of the training examples: their weights, and their texts by the base's own tokenizer."""

import numpy as np
import pytest
import tokenizers

from eef_jax import bases
from eef_jax.data import tfrecord
from eef_jax.data.batches import Batches
from eef_jax.errors import DataError
from eef_jax.report import tokens
from eef_jax.report.run import read
from eef_jax.types import Example
from tests import toyrun


def run_with(tmp_path, **config):
    work = toyrun.make(tmp_path / "run", config=toyrun.CONFIG | config, until="round_0/tune")
    return read(work)


def test_examples_come_with_runs_of_weights(tmp_path):
    run = run_with(tmp_path)
    assert tokens.stored(run, 0) == ()  # a hand-made run without a data set
    assert tokens.first_batch(run, 0) == []
    example = Example(
        id="a:s0@0",
        tokens=np.array([5, 6, 7], np.int32),
        weights=np.array([0, 0, 1], np.float32),
        provenance=dict.fromkeys(tfrecord.PROVENANCE, ""),
    )
    tfrecord.write(run.work.stage("round_0/select").folder / "dataset", [example])
    (found,) = tokens.stored(run, 0)
    assert (found.id, found.tokens.tolist()) == ("a:s0@0", [5, 6, 7])
    assert tokens.runs(found.weights) == [(2, 0.0), (1, 1.0)]
    (run.work.stage("round_0/select").folder / "dataset" / "dataset_info.json").unlink()
    with pytest.raises(DataError, match="not a finished dataset"):
        tokens.stored(run, 0)


def test_the_first_batch_is_the_one_that_training_gets(tmp_path):
    train = toyrun.CONFIG["train"] | {"batch_size": 2, "seq_len": 64}
    run = run_with(tmp_path, train=train)
    examples = [
        Example(
            id=f"{number}",
            tokens=np.full(20 + number, number, np.int32),
            weights=np.ones(20 + number, np.float32),
            provenance=dict.fromkeys(tfrecord.PROVENANCE, ""),
        )
        for number in range(9)
    ]
    tfrecord.write(run.work.stage("round_0/select").folder / "dataset", examples)
    rows = tokens.first_batch(run, 0)
    batches = Batches(
        examples=examples, batch_size=2, seq_len=64, seed=1000 * toyrun.CONFIG["seed"]
    )
    batch, _ = next(batches.iterate())
    for row, trained in zip(rows, batch["tokens"], strict=True):
        laid = [token for example in row for token in example.tokens]
        assert laid == trained[: len(laid)].tolist() and not trained[len(laid) :].any()
    assert sum(map(len, rows)) > 2


def test_texts_by_the_base_that_ships(tmp_path):
    texts = tokens.Texts(run_with(tmp_path))
    assert {*texts.pieces(range(40))} > {"<|user|>", "<|assistant|>", "<|end|>"}


def test_pieces_are_together_the_text_of_the_sequence(tmp_path):
    texts = tokens.Texts(run_with(tmp_path))
    tokenizer = tokenizers.Tokenizer.from_file(f"{bases.find('')}/tokenizer.json")
    ids = tokenizer.encode("find me a red, bold-grip curtain<|end|><|assistant|>search[red]").ids
    pieces = texts.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=False)


def test_without_the_tokenizer_ids_are_shown(tmp_path, monkeypatch):
    for path in (str(tmp_path / "gone"), "org/not-in-the-cache"):
        folder = tmp_path / path.replace("/", "-")
        folder.mkdir()
        texts = tokens.Texts(run_with(folder, model=toyrun.CONFIG["model"] | {"path": path}))
        assert texts.pieces([17, 18]) == ["<17>", "<18>"]
