"""The exploration workload and its runners: equal ids for all, and what each variant computes."""

import numpy as np
import pytest

from benchmarks import exploration
from benchmarks.explore import ours
from benchmarks.explore.workload import Workload, in_turns
from eef_jax.engine.pages import Pages
from eef_jax.engine.shapes import Shapes
from eef_jax.errors import ConfigError
from tests.engine import toymodel

SMALL = Workload(
    experts=2, states=3, turns=2, prompt=6, action=4, observation=5, ids=(0, toymodel.VOCAB)
)
SHAPES = Shapes(slots=6, max_context=64, page=16, tokens=32, rows=4, chunk=8)


def test_states_of_an_expert_are_prefixes_of_each_other():
    deep, shallow = SMALL.start(1, 2), SMALL.start(1, 1)
    assert len(deep) == 6 + 2 * 9 and deep[: len(shallow)] == shallow
    assert SMALL.start(0, 1) != shallow
    assert SMALL.longest == 6 + 4 * 9 and len(SMALL.episodes()) == 6


def test_variants_draw_the_same_and_compute_more():
    outputs, prefilled = {}, {}
    for variant in ours.VARIANTS:
        with toymodel.engine(toymodel.model(), shapes=SHAPES) as engine:
            if variant in ("no_sharing", "neither"):
                book: Pages = ours.Unshared(engine.shapes.pages, 16, one_reader=True)
                engine._scheduler.pages = book
            keep = variant in ("full", "no_sharing")
            outputs[variant] = ours.Player(engine, keep_turns=keep).play(SMALL)
            prefilled[variant] = engine.counters.prefilled
    assert all(found == outputs["full"] for found in outputs.values())
    assert prefilled["full"] < min(prefilled["no_turns"], prefilled["no_sharing"])
    assert max(prefilled["no_turns"], prefilled["no_sharing"]) < prefilled["neither"]
    expected = in_turns(
        {key: SMALL.start(*key) for key in SMALL.episodes()},
        SMALL,
        lambda contexts: [full_passes(ids) for ids in contexts],
    )
    assert outputs["full"] == expected


def full_passes(ids):
    model, drawn = toymodel.model(), []
    for _ in range(SMALL.action):
        drawn.append(int(np.argmax(toymodel.logits(model, ids + drawn)[-1])))
    return drawn


def test_figures_compare_repeat_by_repeat():
    def results(*seconds, ids=(1, 2)):
        return [{"seconds": s, "outputs": [[0, 0, [list(ids), [3]]]]} for s in seconds]

    found = {"full": results(2.0, 4.0, 1.0), "vllm": results(3.0, 3.0, 3.0, ids=(1, 9))}
    (figure,) = exploration.figures(found)
    assert (figure.value, figure.within) == (1.5, True)
    assert "50.0%" in exploration.lines(found)[-1]
    with pytest.raises(ConfigError, match="expected one of"):
        exploration.contenders(["vlm=python"])
