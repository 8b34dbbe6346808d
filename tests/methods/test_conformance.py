"""What every method must do, whatever it selects; new files are found by name."""

import dataclasses
import json

import pytest

from eef_jax import plugins
from eef_jax.methods.base import Attempts, loss_of
from tests import toyrun


@pytest.mark.parametrize("name", plugins.available("methods"))
def test_a_method_plays_selects_and_reports_in_every_round(name):
    module = plugins.load("methods", name)
    method = module.make(module.Config())
    tasks = toyrun.tasks("train")
    # A second expert wins a hard task, which the policy fails from its start.
    second = toyrun.attempt(
        tasks[1], ["search[thing]", "click[buy now]"], True, source="expert", id="expert/second"
    )
    attempts = Attempts(experts=(*toyrun.experts(), second))
    for number in range(method.rounds + 1):
        if number:
            played = toyrun.rollouts(method, attempts, number)
            assert len({t.id for t in played}) == len(played)
            attempts = dataclasses.replace(attempts, rollouts=(*attempts.rollouts, *played))
        selections = method.select(attempts, tasks, number)
        assert selections
        for selection in selections:
            steps = len(selection.trajectory.steps)
            assert len(selection.weights) == len(selection.reasons) == steps
            assert any(selection.weights) and min(selection.weights) >= 0
            assert len(selection.advantages) in (0, steps)
        assert loss_of(method, number).name in plugins.available("train.losses")
        json.dumps(dict(method.facts(attempts, tasks, number)))
        assert list(selections) == list(method.select(attempts, tasks, number))  # it is pure
