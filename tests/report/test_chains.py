"""An expert's attempt as a chain of states: labels, solutions, and the reason of each action."""

import dataclasses

import pytest

from eef_jax.methods.eef import Eef
from eef_jax.report.chains import Round
from eef_jax.report.run import read
from eef_jax.storage.trajectories import index_trajectories, write_trajectories
from eef_jax.types import KEPT_BENEFICIAL, KEPT_EXPERT_WIN, MASKED_CONTEXT, MASKED_HARMFUL, Outcome
from tests import toyrun


def chain(work, task, number=2, expert=None):
    run = read(work)
    experts = {a.id: a for a in run.attempts("expert")}
    played = run.attempts(f"round_{number}/explore") if number else ()
    before = run.attempts("round_1/explore") if number > 1 else ()
    known = {a.id: a for a in (*experts.values(), *before, *played)}
    return Round(run, number, experts, known).chain(experts[expert or f"expert/toy/train/{task}"])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return toyrun.make(tmp_path_factory.mktemp("chains") / "run")


def test_states_are_labelled_and_important_ones_have_solutions(work):
    found = chain(work, 1)
    assert [s.step for s in found.states] == [0, 1, 2, 3]
    assert [(s.wins, s.completed, s.passed) for s in found.states] == [
        *((0, 1, False), (1, 1, True), (0, 1, False), (1, 1, True))
    ]
    assert [s.recovers for s in found.states] == [False, False, True, False]
    solutions = [s.solution and s.solution.fork_step for s in found.states]
    assert solutions == [1, None, 3, None]


def said(found):
    return [[(v.reason, v.states) for v in verdicts] for verdicts in found.verdicts]


def test_actions_have_every_verdict_with_the_states_that_it_is_for(work):
    assert said(chain(work, 1)) == [
        [(KEPT_BENEFICIAL, (0,)), (MASKED_CONTEXT, (2,))],
        [(MASKED_HARMFUL, ())],
        [(KEPT_BENEFICIAL, (2,))],
        [],
    ]


def test_verdicts_and_states_in_words(work):
    found = chain(work, 1)
    (kept, context), (harmful,), *_ = found.verdicts
    assert kept.words.startswith("for s₀: kept, it leads from a state the policy failed from")
    assert context.words == "for s₂: masked, context before the important state, not learned"
    assert harmful.words == "masked: the policy won from before it and failed after it"
    assert [v.kind for v in (kept, context, harmful)] == ["kept", "context", "harmful"]
    both = dataclasses.replace(context, states=(2, 14))
    assert both.words.startswith("for s₂ and s₁₄: masked, ")
    assert dataclasses.replace(kept, reason="kept: a method's own", states=()).words == (
        "kept: a method's own"
    )
    assert found.states[1].words == "passed: 1 of 1 completed rollout won"


def test_why_an_action_is_not_used(work):
    found = chain(work, 1)
    nothing = dataclasses.replace(found, verdicts=[()] * 4)
    assert [nothing.unused(step) for step in range(4)] == [
        *["not used: no solution needs it"] * 3,
        "not used: no state after it was explored",
    ]
    failed = [dataclasses.replace(state, passed=False) for state in found.states]
    assert dataclasses.replace(nothing, states=failed).unused(0) == (
        "not used: no state after it passed"
    )
    assert found.unused(0) == "" and dataclasses.replace(nothing, states=()).unused(0) == ""


def test_who_solves_a_state(work):
    first, second, third, _ = chain(work, 1).states
    assert first.way == "the expert's beneficial action 1, then the policy's own"
    assert second.way == "" and second.notes == ()
    assert third.notes == ("It failed after a state that passed: it needs recovery.",)
    longer = dataclasses.replace(first, solution=third.solution)
    assert longer.way.startswith("the expert's beneficial actions 1 to 3, then")
    assert chain(work, 0).states[0].way == "the policy's own actions alone"
    unsolved = dataclasses.replace(third, solution=None)
    assert unsolved.notes[-1] == "No later state passed: nothing is learned from it."


def test_an_attempt_that_begins_alike_has_states_of_its_own(tmp_path):
    """The second expert leaves the first one's path at s_1: s_2 is not one of its states."""
    one = toyrun.experts()[1]
    other = toyrun.attempt(
        one.task, ["search[thing]", *["click[back]"] * 3], False, source="expert", id="other"
    )
    work = toyrun.make(tmp_path / "run")
    stage = work.stage("expert")
    write_trajectories(stage.folder, [*toyrun.experts(), other])
    stage.commit(toyrun.counts([*toyrun.experts(), other]), toyrun.PROVENANCE)
    found = chain(work, 1, expert="other")
    assert said(found)[0] == [(KEPT_BENEFICIAL, (0,)), (MASKED_CONTEXT, ())]
    assert found.states[0].number == 0 and len(found.states) == 2


def test_an_expert_win_has_no_states_but_the_first(work):
    found = chain(work, 0)
    assert [s.step for s in found.states] == [0]
    assert said(found) == [[(KEPT_EXPERT_WIN, ())]] * 2
    assert chain(work, 0, number=0).states == []


def test_a_state_without_a_completed_rollout_has_no_label(tmp_path):
    work = toyrun.make(tmp_path / "run", until="round_1/select")
    stage = work.stage("round_1/explore")
    played = [
        dataclasses.replace(a.load(), outcome=Outcome.ENV_ERROR) if a.fork_step == 1 else a.load()
        for a in index_trajectories(stage.folder)
    ]
    write_trajectories(stage.folder, played)
    stage.commit(toyrun.counts(played), toyrun.PROVENANCE)
    found = chain(work, 1, number=1)
    assert [s.passed for s in found.states] == [False, None, False, True]
    assert not any(s.recovers for s in found.states)  # s_1 leaves the chain, s_0 failed
    assert said(found) == [[]] * 4  # nothing was selected


def test_the_threshold_of_the_method_holds(tmp_path):
    method = {"name": "eef", "rounds": 2, "states": 3, "rollouts": 1, "threshold": 1.0}
    work = toyrun.make(
        tmp_path / "run",
        config=toyrun.CONFIG | {"method": method},
        method=Eef(rounds=2, states=3, threshold=1.0),
    )
    assert [s.passed for s in chain(work, 1).states] == [False, True, False, True]
