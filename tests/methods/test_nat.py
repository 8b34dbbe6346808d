"""NAT: wins and failures by their marks."""

import dataclasses

import pytest

from eef_jax.errors import ConfigError
from eef_jax.methods import nat
from eef_jax.methods.base import Attempts, loss_of, mark_of
from eef_jax.types import KEPT_EXPERT_WIN, KEPT_FAILURE, Loss, Outcome
from tests.methods import builders

TASKS = [builders.task("a"), builders.task("b")]
A, B = TASKS
WIN = builders.expert(2, of=A, win=True)
FAILURE = builders.expert(3, of=B)


def test_wins_and_failures_have_marks_and_weights_of_their_own():
    method = nat.make(nat.Config(mark="good", failure_mark="bad", failure_weight=0.5))
    broken = dataclasses.replace(FAILURE, outcome=Outcome.ENV_ERROR)
    other = builders.expert(2, of=builders.task("other"), win=True)
    win, failure = method.select(Attempts(experts=(WIN, FAILURE, broken, other)), TASKS, 0)
    assert (win.trajectory, win.mark, win.weights) == (WIN, "good", (1.0, 1.0))
    assert (failure.trajectory, failure.mark, failure.weights) == (FAILURE, "bad", (0.5,) * 3)
    assert set(win.reasons) == {KEPT_EXPERT_WIN} and set(failure.reasons) == {KEPT_FAILURE}
    assert [win.role, failure.role] == ["expert_win", "expert_failure"]
    assert method.facts(Attempts(experts=(WIN, FAILURE)), TASKS, 0)["solved"] == 1


def test_the_policy_plays_with_the_mark_of_wins_and_learns_by_sft():
    method = nat.make(nat.Config())
    assert mark_of(method) == method.mark != method.failure_mark
    assert loss_of(method, 0) == Loss()
    assert method.rounds == 0
    assert not method.episodes(Attempts(experts=(WIN,)), TASKS, 1, 15)


def test_equal_marks_are_refused():
    with pytest.raises(ConfigError, match="must differ"):
        nat.make(nat.Config(mark="x", failure_mark="x"))
