"""EEF against method.md: the table of pass patterns row by row, then each rule by itself."""

import dataclasses
import itertools
import json
import typing

import pytest

from eef_jax.errors import ConfigError
from eef_jax.methods import eef
from eef_jax.methods.base import Attempts
from eef_jax.types import Outcome
from tests.methods import builders

TASKS = [builders.task()]
OWN = ("s0", 0, "oo")

# T = 8 and M = 3 give the skip length 2 and states after 2, 4 and 6 expert actions; a rollout adds
# two actions. Letters: o own win, b beneficial, c masked context, h masked harmful.
TABLE = [
    ("0000", []),
    ("1111", [OWN]),
    ("0111", [("s0", 0, "bboo")]),
    ("0001", [("s0", 0, "bbbbbboo")]),
    ("1000", [OWN]),
    ("0100", [("s0", 0, "bboo")]),
    ("1001", [OWN, ("recovery", 2, "hhbbbboo")]),
    ("1101", [OWN, ("recovery", 4, "cchhbboo")]),
    ("1?01", [OWN, ("recovery", 4, "hhhhbboo")]),
    ("1011", [OWN, ("recovery", 2, "hhbboo")]),
    ("0101", [("s0", 0, "bboo"), ("recovery", 4, "cchhbboo")]),
]


def by_pattern(pattern, length=2):
    results = {"1": True, "0": False, "?": None}
    return lambda episode: results[pattern[episode.fork_step // length]]


def run(method, experts, *rounds, own=(2, 2, 2)):
    """Play rounds with one rule of winning each; return the attempts and the last selections.

    `own` is the number of the policy's own actions in each round.
    """
    attempts = Attempts(experts=tuple(experts))
    for number, (wins, actions) in enumerate(zip(rounds, own, strict=False), start=1):
        attempts = builders.play(method, attempts, TASKS, number, wins, actions)
    return attempts, method.select(attempts, TASKS, len(rounds))


@pytest.mark.parametrize(("pattern", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_pass_patterns(pattern, expected):
    _, selections = run(eef.make(eef.Config(states=3)), [builders.expert(8)], by_pattern(pattern))
    assert builders.learned(selections) == expected


def test_pass_pattern_with_any_earlier_pass():
    method = eef.make(eef.Config(states=3, recovery="any_earlier"))
    _, selections = run(method, [builders.expert(8)], by_pattern("1001"))
    assert builders.learned(selections) == [
        OWN,
        ("recovery", 2, "hhbbbboo"),
        ("recovery", 4, "hhccbboo"),
    ]


@pytest.mark.parametrize("recovery", typing.get_args(eef.Recovery))
@pytest.mark.parametrize("pattern", ["".join(p) for p in itertools.product("01?", repeat=4)])
def test_every_pattern_keeps_the_rules(pattern, recovery):
    """What holds for all 81 patterns: see the last lines of method.md's table."""
    method = eef.make(eef.Config(states=3, recovery=recovery))
    _, selections = run(method, [builders.expert(8)], by_pattern(pattern))
    roles = [selection.role for selection in selections]
    assert roles.count("s0") == ("1" in pattern)
    for selection in selections:
        fork = selection.trajectory.fork_step
        assert pattern[fork // 2] == "1"
        assert all(selection.weights[selection.state :])
        assert not any(selection.weights[: selection.state])
        assert fork <= 6  # the last expert actions are never in it
        if selection.role == "recovery":
            assert pattern[selection.state // 2] == "0"
            assert "1" in pattern[: selection.state // 2]


@pytest.mark.parametrize("length", range(4))
def test_fewer_actions_than_states(length):
    """T < M + 1: T = 0 and T = 1 have s_0 alone, T = 2 also s_1."""
    method = eef.make(eef.Config())
    attempts = Attempts(experts=(builders.expert(length),))
    steps = [e.fork_step for e in method.episodes(attempts, TASKS, 1, max_steps=15)]
    assert steps == list(range(max(1, length)))
    _, selections = run(method, attempts.experts, lambda e: e.fork_step == 1)
    expected = [("s0", 0, "boo")] if length > 1 else []
    assert builders.learned(selections) == expected


def test_several_rollouts_from_each_state_and_a_threshold():
    pattern = {0: "001", 2: "110", 4: "000", 6: "111"}
    wins = lambda e: pattern[e.fork_step][int(e.id[-1])] == "1"
    any_win = eef.make(eef.Config(states=3, rollouts=3))
    attempts, selections = run(any_win, [builders.expert(8)], wins)
    assert len(attempts.rollouts) == 12
    assert len({(t.task.id, t.attempt) for t in attempts.rollouts}) == 12
    assert builders.learned(selections) == [OWN, ("recovery", 4, "cchhbboo")]
    assert [s.trajectory.id[-1] for s in selections] == ["2", "0"]

    strict = eef.make(eef.Config(states=3, rollouts=3, threshold=1.0))
    _, selections = run(strict, [builders.expert(8)], wins)
    # s_0, s_2 and s_4 miss the threshold; the own win that there is still solves s_0
    assert builders.learned(selections) == [OWN]
    two_thirds = eef.make(eef.Config(states=3, rollouts=3, threshold=2 / 3))
    _, selections = run(two_thirds, [builders.expert(8)], wins)
    assert builders.learned(selections) == [OWN, ("recovery", 4, "cchhbboo")]


def test_a_win_share_is_of_completed_rollouts():
    wins = lambda e: {0: False, 2: (True, None)[int(e.id[-1])]}.get(e.fork_step, False)
    method = eef.make(eef.Config(states=3, rollouts=2, threshold=1.0))
    _, selections = run(method, [builders.expert(8)], wins)
    assert builders.learned(selections) == [("s0", 0, "bboo")]


def test_two_experts_of_one_task():
    """Each gives one candidate for s_0 and the shortest is kept; each has its recovery states."""
    one = builders.expert(8, name="one")
    two = builders.expert(4, name="two")  # skip length 1
    by_expert = {
        one.id: {2: False, 4: True, 6: True},
        two.id: {1: True, 2: False, 3: True},
    }
    wins = lambda e: bool(e.parent) and by_expert[e.parent.id][e.fork_step]
    _, selections = run(eef.make(eef.Config(states=3)), [one, two], wins)
    assert builders.learned(selections) == [("s0", 0, "boo"), ("recovery", 2, "chboo")]
    assert {s.trajectory.parent for s in selections} == {two.id}


def test_equal_prefixes_are_explored_once():
    common = ("search", "click next")
    one = builders.expert(4, name="one", first=common)
    two = builders.expert(4, name="two", first=common)
    method = eef.make(eef.Config(states=3))
    episodes = method.episodes(Attempts(experts=(one, two)), TASKS, 1, max_steps=15)
    played = [(e.parent.agent if e.parent else None, e.fork_step) for e in episodes]
    assert played == [(None, 0), ("one", 1), ("one", 2), ("one", 3), ("two", 3)]

    # s_1 is lost to both, and both find the way out by one and the same rollout from s_2
    wins = lambda e: e.fork_step in (0, 2)
    _, selections = run(method, [one, two], wins)
    assert builders.learned(selections) == [OWN, ("recovery", 1, "hboo")]

    # the second expert's labels come from the first one's rollouts, too
    wins = lambda e: e.fork_step == 0 or (e.parent.agent == "two" and e.fork_step == 3)
    _, selections = run(method, [one, two], wins)
    assert builders.learned(selections) == [OWN, ("recovery", 1, "hbboo")]


def test_the_step_cap_bounds_the_states():
    method = eef.make(eef.Config(states=3))
    attempts = Attempts(experts=(builders.expert(8),))
    episodes = method.episodes(attempts, TASKS, 1, max_steps=6)
    assert [e.fork_step for e in episodes] == [0, 2, 4]
    assert {e.max_steps for e in episodes} == {6}


def test_wins_of_experts_are_explored_only_when_asked_for():
    win, loss = builders.expert(8, win=True, name="w"), builders.expert(8, name="l")
    attempts = Attempts(experts=(win, loss))
    failed = eef.make(eef.Config(states=3)).episodes(attempts, TASKS, 1, 15)
    assert {e.parent.agent for e in failed if e.parent} == {"l"}
    both = eef.make(eef.Config(states=3, explore="all")).episodes(attempts, TASKS, 1, 15)
    assert {e.parent.agent for e in both if e.parent} == {"w", "l"}


def test_an_expert_attempt_that_broke_is_neither_explored_nor_learned():
    broken = dataclasses.replace(builders.expert(8), outcome=Outcome.ENV_ERROR)
    method = eef.make(eef.Config(explore="all"))
    attempts = Attempts(experts=(broken,))
    assert [e.fork_step for e in method.episodes(attempts, TASKS, 1, 15)] == [0]
    assert method.select(attempts, TASKS, 0) == []


def test_expert_wins_are_in_or_out():
    win = builders.expert(2, win=True)
    _, selections = run(eef.make(eef.Config()), [win], by_pattern("1"))
    assert builders.learned(selections) == [("expert_win", 0, "ee"), OWN]
    without = eef.make(eef.Config(expert_wins=False))
    attempts, selections = run(without, [win], by_pattern("1"))
    assert builders.learned(selections) == [OWN]
    # the clone needs them in any case
    assert builders.learned(without.select(attempts, TASKS, 0)) == [("expert_win", 0, "ee")]


def test_a_harmful_action_carries_no_weight_in_an_expert_win():
    win = builders.expert(8, win=True)
    _, selections = run(eef.make(eef.Config(states=3, explore="all")), [win], by_pattern("1011"))
    assert builders.learned(selections) == [
        ("expert_win", 0, "hheeeeee"),
        OWN,
        ("recovery", 2, "hhbboo"),
    ]


def test_s0_stays_solved_by_an_earlier_own_win():
    method = eef.make(eef.Config(states=3))
    _, selections = run(method, [builders.expert(8)], by_pattern("1000"), by_pattern("0000"))
    assert builders.learned(selections) == [OWN]
    assert selections[0].trajectory.round == 1


def test_a_stored_recovery_is_used_while_its_state_is_important():
    method, experts = eef.make(eef.Config(states=3)), [builders.expert(8)]
    way = ("recovery", 2, "hhbboo")
    _, selections = run(method, experts, by_pattern("1011"), by_pattern("1000"))
    assert builders.learned(selections) == [OWN, way]
    assert [s.trajectory.round for s in selections] == [2, 1]
    # s_2 passes now, so it needs no recovery; then it is lost again
    _, selections = run(method, experts, by_pattern("1011"), by_pattern("1111"))
    assert builders.learned(selections) == [OWN]
    rounds = by_pattern("1011"), by_pattern("1111"), by_pattern("1000")
    _, selections = run(method, experts, *rounds)
    assert builders.learned(selections) == [OWN, way]


def test_a_stored_solution_with_an_action_now_harmful_is_not_used():
    method, experts = eef.make(eef.Config(states=3)), [builders.expert(8)]
    # round 1 solves s_0 over a_0..a_3, and round 2 only by a longer way
    first, second, own = by_pattern("0010"), by_pattern("0100"), (2, 9)
    _, selections = run(method, experts, first, by_pattern("0000"), own=own)
    assert builders.learned(selections) == [("s0", 0, "bbbboo")]
    # with a_2, a_3 labelled harmful in round 2 the shorter one is out
    _, selections = run(method, experts, first, second, own=own)
    assert builders.learned(selections) == [("s0", 0, "bb" + 9 * "o")]

    # round 1 recovers s_2 over a_2..a_5; with a_4, a_5 harmful that is out, however short
    first, lost, harmful = by_pattern("1001"), by_pattern("1000"), by_pattern("1010")
    _, selections = run(method, experts, first, lost, own=own)
    assert builders.learned(selections)[1:] == [("recovery", 2, "hhbbbboo")]
    _, selections = run(method, experts, first, harmful, own=own)
    assert builders.learned(selections)[1:] == [("recovery", 2, "hhbb" + 9 * "o")]


def test_the_choice_among_rounds():
    def select(choice, first, second, seed=0):
        method = eef.make(eef.Config(states=3, choice=choice, seed=seed))
        attempts = Attempts(experts=())
        attempts = builders.play(method, attempts, TASKS, 1, by_pattern("1"), own=first)
        attempts = builders.play(method, attempts, TASKS, 2, by_pattern("1"), own=second)
        (selection,) = method.select(attempts, TASKS, 2)
        return selection.trajectory.round

    assert select("shortest", 2, 3) == 1
    assert select("shortest", 3, 2) == 2
    assert select("shortest", 2, 2) == 2
    assert select("newest", 2, 3) == 2
    drawn = [select("random", 2, 2, seed) for seed in range(20)]
    assert set(drawn) == {1, 2}
    assert drawn == [select("random", 2, 2, seed) for seed in range(20)]


def test_length_counts_from_the_important_state():
    """Over an expert's four actions and one own a win is longer than over two and two."""
    one, two = builders.expert(8, name="one"), builders.expert(8, name="two")
    wins = lambda e: (
        (e.parent.agent, e.fork_step) in {("one", 4), ("two", 2)} if e.parent else False
    )
    _, selections = run(eef.make(eef.Config(states=3)), [one, two], wins)
    assert [s.trajectory.parent for s in selections if s.role == "s0"] == [two.id]


def test_rounds_read_their_own_rollouts_only():
    method, experts = eef.make(eef.Config(states=3)), [builders.expert(8)]
    attempts, _ = run(method, experts, by_pattern("0111"), by_pattern("1011"))
    first = builders.learned(method.select(attempts, TASKS, 1))
    assert first == [("s0", 0, "bboo")]
    assert method.select(attempts, TASKS, 2) == method.select(attempts, TASKS, 2)


def test_tasks_that_are_not_trained_on_are_left_alone():
    other = builders.task("other")
    attempts = Attempts(
        experts=(builders.expert(8, of=other), builders.expert(2, win=True, of=other))
    )
    method = eef.make(eef.Config())
    assert {e.task.id for e in method.episodes(attempts, TASKS, 1, 15)} == {"t"}
    assert method.select(attempts, TASKS, 1) == []


def test_facts():
    method = eef.make(eef.Config(states=3, rollouts=2))
    wins = lambda e: {0: False, 2: True, 4: False, 6: (True, None)[int(e.id[-1])]}[e.fork_step]
    attempts, selections = run(method, [builders.expert(8)], wins)
    facts = method.facts(attempts, TASKS, 1)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["yield"] == {
        "0": {"played": 2, "completed": 2, "wins": 0},
        "1": {"played": 2, "completed": 2, "wins": 2},
        "2": {"played": 2, "completed": 2, "wins": 0},
        "3": {"played": 2, "completed": 1, "wins": 1},
    }
    assert facts["tasks"] == facts["solved"] == facts["solved_only_through_failure"] == 1
    assert facts["share_solved"] == 1.0
    assert facts["examples"] == {"recovery": 1, "s0": 1}
    assert sum(facts["steps"].values()) == sum(len(s.trajectory.steps) for s in selections)
    assert facts["recovery_states"] == 1
    assert facts["harmful_actions"] == 2
    assert method.facts(attempts, TASKS, 0)["solved"] == 0


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("explore", "fail", "did you mean failed"),
        ("recovery", "any", "any_earlier"),
        ("choice", "short", "did you mean shortest"),
        ("rollouts", 0, "1 or more"),
        ("rounds", 1.5, "whole number"),
        ("threshold", 1.5, "above 0"),
    ],
)
def test_bad_settings(field, value, hint):
    with pytest.raises(ConfigError, match=hint) as error:
        eef.make(eef.Config(**{field: value}))
    assert f"method.{field}" in str(error.value)
