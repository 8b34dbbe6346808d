"""RWR: the weights of attempts by their rewards."""

import dataclasses
import math

import pytest

from eef_jax.errors import ConfigError
from eef_jax.methods import eef, rwr
from eef_jax.methods.base import Attempts, loss_of
from eef_jax.types import KEPT_BY_REWARD, MASKED_CONTEXT, Loss
from tests.methods import builders

TASKS = [builders.task("a")]
EXPERT = builders.expert(4, of=TASKS[0])
WIN = builders.expert(3, of=TASKS[0], win=True, name="winner")


def play(method, attempts, number, rewards):
    """A round whose attempts have these rewards, in order; None is an infrastructure failure."""
    played = builders.play(
        method, attempts, TASKS, number, lambda e: None if rewards[e.attempt] is None else False
    )
    old = len(attempts.rollouts)
    rollouts = [
        dataclasses.replace(t, reward=rewards[t.attempt] or 0.0, win=rewards[t.attempt] == 1)
        for t in played.rollouts[old:]
    ]
    return dataclasses.replace(attempts, rollouts=(*attempts.rollouts, *rollouts))


def test_every_completed_attempt_is_weighted_by_its_reward():
    method = rwr.make(rwr.Config(rollouts=4, temperature=0.5))
    attempts = play(method, Attempts(experts=(EXPERT, WIN)), 1, [1.0, 0.25, None, 0.0])
    expert, *own = method.select(attempts, TASKS, 1)
    assert expert.trajectory is WIN and expert.role == "expert_win"
    weights = [1.0, math.exp(-1.5), math.exp(-2.0)]
    assert [s.weights for s in own] == [(pytest.approx(w),) * 2 for w in weights]
    assert {r for s in own for r in s.reasons} == {KEPT_BY_REWARD}
    assert {s.role for s in own} == {"attempt"}
    assert loss_of(method, 1) == Loss()
    assert method.facts(attempts, TASKS, 1)["solved"] == 1


def test_from_expert_states_the_expert_is_context():
    method = rwr.make(rwr.Config(rollouts=1, states=1, expert_wins=False))
    attempts = play(method, Attempts(experts=(EXPERT,)), 1, [0.0, 1.0])
    first, second = method.select(attempts, TASKS, 1)
    assert (first.state, second.state) == (0, 2)
    assert second.reasons == (MASKED_CONTEXT,) * 2 + (KEPT_BY_REWARD,) * 2
    assert second.weights == (0.0, 0.0, 1.0, 1.0)
    theirs = eef.make(eef.Config(states=1)).episodes(Attempts(experts=(EXPERT,)), TASKS, 1, 15)
    assert [e.fork_step for e in theirs] == [0, 2]


@pytest.mark.parametrize(("learned", "rounds"), [("all", [1, 2]), ("newest", [2])])
def test_which_rounds_are_learned(learned, rounds):
    method = rwr.make(rwr.Config(rollouts=1, learned=learned, expert_wins=False))
    attempts = play(method, Attempts(experts=(EXPERT, WIN)), 1, [0.0])
    attempts = play(method, attempts, 2, [0.5])
    assert [s.trajectory.round for s in method.select(attempts, TASKS, 2)] == rounds
    assert [s.trajectory for s in method.select(attempts, TASKS, 0)] == [WIN]


def test_a_temperature_is_above_0():
    with pytest.raises(ConfigError, match=r"method\.temperature"):
        rwr.make(rwr.Config(temperature=0.0))
