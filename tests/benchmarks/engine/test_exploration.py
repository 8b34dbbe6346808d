"""The exploration workload: the same ids for every engine, and what each variant computes."""

import json

import numpy as np
import pytest

from benchmarks.engine import exploration, ours
from benchmarks.engine.workload import Workload, play_by_turn
from eef_jax.config.sections import EngineConfig
from eef_jax.errors import ConfigError
from tests.engine import toymodel

SMALL = Workload(
    experts=2, states=3, turns=2, prompt=6, action=4, observation=5, ids=(0, toymodel.VOCAB)
)
CONFIG = EngineConfig(
    max_num_seqs=6, max_context=64, page_size=16, prefill_tokens=32, prefill_seqs=4, prefill_chunk=8
)


def test_contexts_of_earlier_states_are_prefixes_of_later_ones():
    deep, shallow = SMALL.start(1, 2), SMALL.start(1, 1)
    assert len(deep) == 6 + 2 * 9 and deep[: len(shallow)] == shallow
    assert SMALL.start(0, 1) != shallow
    assert SMALL.max_tokens == 6 + 4 * 9 and len(SMALL.episodes()) == 6


def test_variants_generate_the_same_and_prefill_more():
    outputs, prefilled = {}, {}
    for variant in ours.VARIANTS:
        with ours.make_engine(toymodel.model(), CONFIG, variant=variant) as engine:
            player = ours.Player(engine, keep_turns=ours.keeps_turns(variant))
            outputs[variant] = player.play(SMALL)
            prefilled[variant] = engine.counters.prefilled
    assert all(found == outputs["full"] for found in outputs.values())
    assert prefilled["full"] < min(prefilled["no_turns"], prefilled["no_sharing"])
    assert max(prefilled["no_turns"], prefilled["no_sharing"]) < prefilled["neither"]
    expected = play_by_turn(
        {key: SMALL.start(*key) for key in SMALL.episodes()},
        SMALL,
        lambda contexts: [full_passes(ids) for ids in contexts],
    )
    assert outputs["full"] == expected


def full_passes(ids):
    model, generated = toymodel.model(), []
    for _ in range(SMALL.action):
        generated.append(int(np.argmax(toymodel.logits(model, ids + generated)[-1])))
    return generated


def test_ratios_are_taken_within_a_repeat():
    def one(ours, theirs, **more):
        timed = {"tokens": {}, "agreement": 1.0}
        full, vllm = timed | {"seconds": ours}, timed | {"seconds": theirs} | more
        return {"made_by": {}, "experts": 8, "full": full, "vllm": vllm}

    found = exploration.figures([one(2.0, 3.0), one(4.0, 3.0, apart=2e-3), one(1.0, 3.0)])
    assert [(f.value, f.within) for f in found] == [(1.5, True), (2e-3, False)]
    assert "| 24.00 |" in exploration.times_table([one(2.0, 3.0)])[2]
    with pytest.raises(ConfigError, match="expected one of"):
        exploration.engine_commands(["vlm=python"])


def test_results_of_another_workload_are_not_extended(tmp_path):
    results = tmp_path / "results.json"
    assert exploration.stored_repeats(results, {"full"}, 8) == []
    results.write_text(json.dumps([{"made_by": {}, "experts": 8, "full": {}}]))
    assert len(exploration.stored_repeats(results, {"full"}, 8)) == 1
    with pytest.raises(ConfigError, match="give another --results"):
        exploration.stored_repeats(results, {"full", "vllm"}, 8)


def test_the_first_difference_has_the_ids_before_it():
    mine = {"outputs": [[0, 0, [[1, 2, 3, 4], [5, 6, 7, 8]]], [0, 1, [[1, 1, 1, 1], [2, 2, 2, 2]]]]}
    theirs = {"outputs": [[0, 0, [[1, 2, 3, 4], [5, 9, 9, 9]]], mine["outputs"][1]]}
    assert exploration.agreement(mine, theirs) == 3 / 4
    ((before, a, b),) = exploration.first_differences(mine, theirs, SMALL)
    assert (a, b) == (6, 9)
    assert before == [*SMALL.start(0, 0), 1, 2, 3, 4, *SMALL.observe((0, 0), 0), 5]
