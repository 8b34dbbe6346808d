"""GRPO: groups, advantages and small rounds."""

import dataclasses
from collections import Counter

import pytest

from eef_jax.methods import eef, grpo
from eef_jax.methods.base import Attempts, loss_of
from eef_jax.types import KEPT_BY_ADVANTAGE, MASKED_CONTEXT, Loss
from tests.methods import builders
from tests.methods.test_rwr import EXPERT, TASKS, WIN, play


def advantages(rewards, number=1, experts=(EXPERT,), **options):
    method = grpo.make(grpo.Config(**{"rollouts": len(rewards)} | options))
    attempts = play(method, Attempts(experts=experts), number, rewards)
    selections = method.select(attempts, TASKS, number)
    assert all(s.weights == (1.0,) * 2 for s in selections)
    assert all(len(set(s.advantages)) == 1 for s in selections)
    assert {r for s in selections for r in s.reasons} == {KEPT_BY_ADVANTAGE}
    return [s.advantages[0] for s in selections]


@pytest.mark.parametrize(
    ("options", "rewards", "expected"),
    [
        # mean 0.5, standard deviation 0.5
        ({}, [1.0, 0.0, 0.0, 1.0], [1.0, -1.0, -1.0, 1.0]),
        ({"scale": "none"}, [1.0, 0.0, 0.0, 1.0], [0.5, -0.5, -0.5, 0.5]),
        # mean 0.5, variance (0 + 0.25 + 0.25) / 3; the third was not completed
        ({"scale": "none"}, [0.5, 1.0, None, 0.0], [0.0, 0.5, -0.5]),
        ({}, [0.5, 1.0, None, 0.0], [0.0, 1.5**0.5, -(1.5**0.5)]),
        ({"reward": "win"}, [0.75, 1.0], [-1.0, 1.0]),
        ({"reward": "win"}, [0.75, 0.25], [0.0, 0.0]),
        ({}, [1.0, 1.0], [0.0, 0.0]),
    ],
)
def test_advantages_by_hand(options, rewards, expected):
    assert advantages(rewards, **options) == pytest.approx(expected)


def test_groups_of_equal_rewards_are_dropped_where_others_differ():
    # s_0 (attempts 0 and 1) is won twice, the expert's state (2 and 3) once
    experts = Attempts(experts=(EXPERT,))
    for equal_groups, expected in (("drop", [2, 2]), ("keep", [0, 0, 2, 2])):
        options = grpo.Config(rollouts=2, states=1, equal_groups=equal_groups)
        method = grpo.make(options)
        selections = method.select(play(method, experts, 1, [1.0, 1.0, 0.0, 1.0]), TASKS, 1)
        assert [s.state for s in selections] == expected
    last = selections[-1]
    assert last.reasons == (MASKED_CONTEXT,) * 2 + (KEPT_BY_ADVANTAGE,) * 2
    assert last.weights == (0.0, 0.0, 1.0, 1.0)
    assert last.advantages == (0.0, 0.0, 1.0, 1.0)


def test_groups_start_where_eef_explores():
    experts = Attempts(experts=(EXPERT, WIN))
    method = grpo.make(grpo.Config(rollouts=3, states=3))
    ours = Counter(e.fork_step for e in method.episodes(experts, TASKS, 1, 15))
    theirs = eef.make(eef.Config(rollouts=3, states=3)).episodes(experts, TASKS, 1, 15)
    assert ours == Counter(e.fork_step for e in theirs) == {0: 3, 1: 3, 2: 3, 3: 3}


def test_only_the_newest_round_is_learned():
    method = grpo.make(grpo.Config(rollouts=2))
    attempts = play(method, Attempts(experts=(EXPERT,)), 1, [1.0, 0.0])
    attempts = play(method, attempts, 2, [0.0, 1.0])
    assert [s.trajectory.round for s in method.select(attempts, TASKS, 2)] == [2, 2]


def test_expert_wins_have_a_weight_and_no_advantage():
    method = grpo.make(grpo.Config(rollouts=2, expert_weight=0.25))
    attempts = play(method, Attempts(experts=(EXPERT, WIN)), 1, [1.0, 0.0])
    expert = method.select(attempts, TASKS, 1)[-1]
    assert (expert.trajectory, expert.weights, expert.advantages) == (WIN, (0.25,) * 3, ())
    (clone,) = method.select(attempts, TASKS, 0)
    assert clone.weights == (1.0,) * 3


def test_the_losses():
    method = grpo.make(grpo.Config(clip_high=0.28, kl=0.01, normalization="sequence"))
    assert loss_of(method, 0) == Loss()
    assert loss_of(method, 3).name == "pg"
    assert loss_of(method, 3).options == {
        "clip_low": 0.2,
        "clip_high": 0.28,
        "normalization": "sequence",
        "kl": 0.01,
    }


def test_small_rounds_take_every_task_once_before_any_twice():
    tasks = [builders.task(f"t{number}") for number in range(6)]
    method = grpo.make(grpo.Config(rollouts=2, tasks_per_round=2, rounds=6))

    def played(number):
        episodes = method.episodes(Attempts(experts=()), tasks, number, 15)
        assert all(count == 2 for count in Counter(e.task.id for e in episodes).values())
        return [episode.task.id for episode in episodes[::2]]

    first, second = [[*played(n), *played(n + 1), *played(n + 2)] for n in (1, 4)]
    assert sorted(first) == sorted(second) == sorted(task.id for task in tasks)
    assert first != second
    other = dataclasses.replace(method, seed=1)
    assert [e.task.id for e in other.episodes(Attempts(experts=()), tasks, 1, 15)] != first[:2]
    every = dataclasses.replace(method, tasks_per_round=0)
    assert len(every.episodes(Attempts(experts=()), tasks, 1, 15)) == 12
