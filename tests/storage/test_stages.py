"""Which stages a start runs, leaves out, or refuses."""

import pytest

from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import stages

EVERYTHING = stages.KINDS
NAMES = stages.stage_names(1)


def test_names_in_order():
    assert NAMES[:4] == ["expert", "round_0/select", "round_0/tune", "round_0/evaluate"]
    assert NAMES[4:] == [f"round_1/{kind}" for kind in ("explore", "select", "tune", "evaluate")]
    assert [stages.round_of(name) for name in NAMES] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_stages_need_earlier_ones_only():
    names = stages.stage_names(3)
    for place, name in enumerate(names):
        assert set(stages.needs(name)) <= set(names[:place])


@pytest.mark.parametrize("count", range(len(NAMES) + 1))
def test_all_that_is_left_is_run(count):
    plan = stages.schedule(1, EVERYTHING, NAMES[:count])
    assert (plan.done, plan.todo, plan.left_out) == (tuple(NAMES[:count]), tuple(NAMES[count:]), ())


@pytest.mark.parametrize(
    ("kinds", "done", "todo"),
    [
        (("expert",), [], ["expert"]),
        (("expert",), ["expert"], []),
        (("expert", "select"), [], ["expert", "round_0/select"]),
        (("select", "tune"), ["expert"], ["round_0/select", "round_0/tune"]),
        (("evaluate",), NAMES[:3], ["round_0/evaluate"]),
        (("report",), [], []),
        # What is not evaluated keeps no later round from being played.
        (("explore",), NAMES[:3], ["round_1/explore"]),
    ],
)
def test_a_part_of_the_stages(kinds, done, todo):
    plan = stages.schedule(1, kinds, done)
    assert list(plan.todo) == todo
    assert set(plan.left_out) == set(NAMES) - set(done) - set(todo)


@pytest.mark.parametrize(
    ("kinds", "done", "lacking"),
    [
        (("tune",), [], "round_0/tune needs round_0/select"),
        (("expert", "explore"), [], "round_1/explore needs round_0/tune"),
        (("explore",), NAMES[1:3], "round_1/explore needs expert"),
    ],
)
def test_stages_that_cannot_be_run(kinds, done, lacking):
    with pytest.raises(DataError, match=f"{lacking}, which is not finished"):
        stages.schedule(1, kinds, done)


def test_unknown_kinds():
    with pytest.raises(ConfigError, match="did you mean tune"):
        stages.schedule(1, ("tun",), [])
