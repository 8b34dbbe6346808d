"""The exploration workload and its runners: equal ids for all, and what each variant computes."""

import json

import numpy as np
import pytest

from benchmarks.engine import exploration, ours
from benchmarks.engine.workload import Workload, in_turns
from eef_jax.engine.config import EngineConfig
from eef_jax.engine.pages import PageAllocator
from eef_jax.errors import ConfigError
from tests.engine import toymodel

SMALL = Workload(
    experts=2, states=3, turns=2, prompt=6, action=4, observation=5, ids=(0, toymodel.VOCAB)
)
CONFIG = EngineConfig(
    max_num_seqs=6, max_context=64, page_size=16, prefill_tokens=32, prefill_seqs=4, prefill_chunk=8
)


def test_states_of_an_expert_are_prefixes_of_each_other():
    deep, shallow = SMALL.start(1, 2), SMALL.start(1, 1)
    assert len(deep) == 6 + 2 * 9 and deep[: len(shallow)] == shallow
    assert SMALL.start(0, 1) != shallow
    assert SMALL.longest == 6 + 4 * 9 and len(SMALL.episodes()) == 6


def test_variants_draw_the_same_and_compute_more():
    outputs, prefilled = {}, {}
    for variant in ours.VARIANTS:
        with toymodel.engine(toymodel.model(), config=CONFIG) as engine:
            if variant in ("no_sharing", "neither"):
                book: PageAllocator = ours.Unshared(engine.config.num_pages, 16, one_reader=True)
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
    def one(ours, theirs, **more):
        timed = {"tokens": {}, "agreement": 1.0}
        full, vllm = timed | {"seconds": ours}, timed | {"seconds": theirs} | more
        return {"made_by": {}, "experts": 8, "full": full, "vllm": vllm}

    found = exploration.figures([one(2.0, 3.0), one(4.0, 3.0, apart=2e-3), one(1.0, 3.0)])
    assert [(f.value, f.within) for f in found] == [(1.5, True), (2e-3, False)]
    assert "| 24.00 |" in exploration.lines([one(2.0, 3.0)])[2]
    with pytest.raises(ConfigError, match="expected one of"):
        exploration.contenders(["vlm=python"])


def test_repeats_of_something_else_are_not_added_to(tmp_path):
    kept = tmp_path / "kept.json"
    assert exploration.earlier(kept, {"full"}, 8) == []
    kept.write_text(json.dumps([{"made_by": {}, "experts": 8, "full": {}}]))
    assert len(exploration.earlier(kept, {"full"}, 8)) == 1
    with pytest.raises(ConfigError, match="give another --results"):
        exploration.earlier(kept, {"full", "vllm"}, 8)


def test_a_parting_is_the_first_id_that_differs_and_what_stood_before_it():
    mine = {"outputs": [[0, 0, [[1, 2, 3, 4], [5, 6, 7, 8]]], [0, 1, [[1, 1, 1, 1], [2, 2, 2, 2]]]]}
    theirs = {"outputs": [[0, 0, [[1, 2, 3, 4], [5, 9, 9, 9]]], mine["outputs"][1]]}
    assert exploration.agreement(mine, theirs) == 3 / 4
    ((before, a, b),) = exploration.partings(mine, theirs, SMALL)
    assert (a, b) == (6, 9)
    assert before == [*SMALL.start(0, 0), 1, 2, 3, 4, *SMALL.answer((0, 0), 0), 5]
