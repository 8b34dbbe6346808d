"""What every method must do, whatever it selects; new files are found by name."""

import dataclasses
import json

import pytest

from eef_jax import plugins
from eef_jax.methods.base import Attempts
from tests import toyrun


@pytest.mark.parametrize("name", plugins.available("methods"))
def test_a_method_plays_selects_and_reports_in_every_round(name):
    module = plugins.load("methods", name)
    method = module.make(module.Config())
    attempts, tasks = Attempts(experts=toyrun.experts()), toyrun.tasks("train")
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
        json.dumps(dict(method.facts(attempts, tasks, number)))
        assert list(selections) == list(method.select(attempts, tasks, number))  # it is pure
