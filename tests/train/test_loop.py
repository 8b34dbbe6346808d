"""`fit`: determinism, resuming and its single compilation."""

import jax
import numpy as np
import pytest

from eef_jax.config.sections import LoraConfig
from eef_jax.errors import ConfigError
from eef_jax.train.loop import fit
from tests.train import toy

DROPPED = LoraConfig(rank=4, dropout=0.2, targets=("q_proj", "down_proj"))


def run(*, lora=DROPPED, **options):
    settings = {"mesh": toy.one_device(), "optimizer": toy.OPTIMIZER, "progress": False}
    return fit(toy.model(lora), toy.batches(batch_size=4), **settings | options)


def assert_same_bits(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_loss_falls_and_is_reported():
    seen = []
    _, facts = run(steps=30, lora=None, log=lambda step, scalars: seen.append((step, scalars)))
    assert [step for step, _ in seen] == list(range(1, 31))
    assert facts["loss"] < 0.8 * seen[0][1]["loss"]
    assert facts["steps"] == 30
    assert 0 < facts["padding"] < 1
    assert facts["weighted_tokens"] < facts["tokens"]


def test_equal_runs_give_equal_bits():
    assert_same_bits(run(steps=4)[0], run(steps=4)[0])


def test_an_epoch_is_a_whole_pass_over_the_data():
    batches = toy.batches(batch_size=4)
    _, facts = run(epochs=2)
    assert facts["steps"] == batches.steps(2)
    assert facts["tokens"] == 2 * sum(len(example.tokens) for example in batches.examples)


def test_the_step_is_compiled_once(caplog):
    with jax.log_compiles():
        run(steps=6)
    compiled = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    assert sum("jit(update)" in message for message in compiled) == 1, compiled


def test_the_progress_bar_shows_loss_and_speed(capsys):
    run(steps=2, progress=True, label="clone")
    shown = capsys.readouterr().err
    assert "clone" in shown and "loss" in shown and "tokens/s" in shown


def test_steps_or_epochs_must_be_given():
    with pytest.raises(ConfigError, match="steps=None and epochs=None"):
        run()
