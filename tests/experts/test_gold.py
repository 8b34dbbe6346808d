"""The expert that knows the way: how it fails, and that it always fails the same way."""

import random

import pytest

from eef_jax.errors import ConfigError
from eef_jax.experts import gold
from eef_jax.rollout import loop
from eef_jax.types import Episode, Outcome
from tests.toygame import Corridor

PATH = ["teleport to outside", "focus on dove egg", "pick up egg", "move egg to box"]
ROOM = """This room is called the outside. In it, you see:
	the agent
	a substance called air
	a dove egg
	an axe
	a fire pit (containing nothing)
	a fountain. In the fountain is: water.
"""
NEVER = {"skip": 0.0, "wrong": 0.0, "stop": 0.0}


def plan(seed=0, **rates):
    return gold.plan_actions(PATH, gold.Config(**{**NEVER, **rates}), random.Random(seed))


def test_without_weaknesses_it_keeps_to_the_path():
    assert plan() == PATH


def test_it_leaves_out_steps():
    plans = [plan(seed, skip=1.0) for seed in range(20)]
    assert {len(PATH) - len(steps) for steps in plans} == {1, 2, 3}
    assert all(step in PATH for steps in plans for step in steps)


def test_it_stops_early():
    plans = [plan(seed, stop=1.0) for seed in range(20)]
    assert all(steps == PATH[: len(steps)] for steps in plans)
    assert {len(steps) for steps in plans} == {1, 2, 3}


def test_it_looks_for_another_thing_to_focus_on():
    steps = plan(wrong=1.0)
    assert steps == [PATH[0], gold.LOOK_AROUND, gold.WRONG_FOCUS + PATH[1], *PATH[2:]]
    found = {gold.wrong_focus(PATH[1], ROOM, random.Random(seed)) for seed in range(30)}
    assert found == {"focus on axe", "focus on fire pit", "focus on fountain"}
    assert gold.wrong_focus(PATH[1], "nothing here", random.Random(0)) == PATH[1]


def test_it_looks_before_it_names_things():
    looking = gold.insert_looks([*PATH, "teleport to kitchen", "focus on dove", "focus on egg"])
    assert looking == [
        *(
            PATH[0],
            gold.LOOK_AROUND,
            *PATH[1:],
            "teleport to kitchen",
            gold.LOOK_AROUND,
            "focus on dove",
        ),
        "focus on egg",
    ]
    assert gold.insert_looks(looking) == looking
    rates = gold.Config(skip=0.0, wrong=1.0, stop=0.0)
    steps = gold.plan_actions(gold.insert_looks(PATH), rates, random.Random(0))
    assert steps == [PATH[0], gold.LOOK_AROUND, gold.WRONG_FOCUS + PATH[1], *PATH[2:]]


def test_shares_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="at most 1 together"):
        gold.Config(skip=0.5, wrong=0.5, stop=0.5)


def test_an_environment_without_gold_paths_is_refused():
    with pytest.raises(ConfigError, match="corridor has none"):
        gold.make(gold.Config(), env=Corridor())


class Guided(Corridor):
    """The toy corridor with its solution."""

    def gold_path(self, task):
        key = int(task.id.rpartition("/")[2]) % 5
        return ["right"] * key + ["take"] + ["right"] * (4 - key) + ["open"]


def played(seed, **rates):
    env = Guided()
    orders = [
        Episode(id=task.id, task=task, round=0, attempt=0, max_steps=20)
        for task in env.tasks("train")
    ]
    return loop.play_episodes_sync(env, gold.make(gold.Config(seed=seed, **rates), env=env), orders)


def test_it_wins_where_it_is_not_weak_and_quits_where_it_stops():
    assert all(t.win for t in played(0, **NEVER))
    stopped = played(0, **NEVER | {"stop": 1.0})
    assert {t.outcome for t in stopped} == {Outcome.FAILED}
    assert all(t.outcome.completed and t.steps[-1].action != "open" for t in stopped)


def test_a_seed_pins_it():
    def actions(trajectories):
        return [[step.action for step in t.steps] for t in trajectories]

    assert actions(played(1)) == actions(played(1)) != actions(played(2))
