"""Reference log-probabilities: the margins before the first update, and starting again."""

import dataclasses

import numpy as np
import pytest
from etils import epath

from eef_jax.cluster.hosts import SINGLE_PROCESS
from eef_jax.config.sections import OptimizerConfig
from eef_jax.learner import reference
from eef_jax.train import losses
from eef_jax.train.loop import fit
from eef_jax.train.losses.base import REFERENCE
from eef_jax.train.step import scored_columns
from eef_jax.types import Loss
from tests.train import toy

LOSS = losses.make(Loss(name="dpo", options={"beta": 0.5}))
# Updates too small for float32: every step of an epoch sees the first weights.
STILL = OptimizerConfig(learning_rate=1e-30, schedule="constant", warmup_ratio=0.0)


def unscored():
    examples = [
        dataclasses.replace(e, columns={n: c for n, c in e.columns.items() if n != REFERENCE})
        for e in toy.with_columns(Loss(name="dpo"), count=20)
    ]
    return toy.batches(examples=examples, columns=scored_columns(LOSS))


def score(folder, *, scan=False, accumulation_steps=1, made_from="a"):
    model, batches = toy.model(scan=scan), unscored()
    stored = reference.add_column(
        batches,
        folder,
        model,
        model.trainable,
        mesh=toy.one_device(),
        loss=LOSS,
        accumulation_steps=accumulation_steps,
        made_from={"select": made_from},
        hosts=SINGLE_PROCESS,
    )
    return model, dataclasses.replace(batches, examples=stored, columns=LOSS.columns)


@pytest.mark.optimized
@pytest.mark.parametrize(("scan", "accumulation_steps"), [(False, 1), (True, 2)])
def test_margins_before_the_first_update_are_exactly_0(tmp_path, scan, accumulation_steps):
    model, batches = score(
        epath.Path(tmp_path) / "d", scan=scan, accumulation_steps=accumulation_steps
    )
    seen = []
    _, facts = fit(
        model,
        batches,
        mesh=toy.one_device(),
        optimizer=STILL,
        loss=LOSS,
        epochs=1,
        accumulation_steps=accumulation_steps,
        progress=False,
        log=lambda step, scalars: seen.append(scalars),
    )
    assert facts["steps"] == len(seen) > 2
    assert [scalars["margin"] for scalars in seen] == [0.0] * len(seen)
    assert [scalars["accuracy"] for scalars in seen] == [0.0] * len(seen)


def test_the_column_is_made_once_for_the_same_data(tmp_path, monkeypatch):
    _, first = score(epath.Path(tmp_path) / "d")
    for left, right in zip(unscored().examples, first.examples, strict=True):
        assert left.id == right.id and left.pair == right.pair
        column = right.columns[REFERENCE]
        assert (column[right.loss_positions] < 0).all()
        assert np.count_nonzero(column) == right.loss_positions.size
    made = []
    scorer = reference.step_lib.make_scorer
    monkeypatch.setattr(
        reference.step_lib, "make_scorer", lambda *a, **k: made.append(1) or scorer(*a, **k)
    )
    score(epath.Path(tmp_path) / "d")
    assert not made
    score(epath.Path(tmp_path) / "d", made_from="b")
    assert made
