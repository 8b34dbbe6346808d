"""Tests over values that hypothesis draws: few in `make test`, many in the load lane.

Each draw is the same in every run, so a failure is found again by running the test again.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from eef_jax.untrusted import joined

FEW = 25
MANY = 200
# Texts as they enter a run: any characters, NUL and halves of surrogate pairs too; pairs joined.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20).map(joined)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def holds(*drawn, few=FEW, many=MANY, **named):
    """Decorate a check of drawn values; a second test in the load lane draws more."""

    def decorate(check):
        @_in_both_lanes(few, many)
        def test(examples):
            _settings(examples)(given(*drawn, **named)(check))()

        # Not functools.wraps: pytest would look for the check's arguments.
        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def holds_through(machine: type[RuleBasedStateMachine], *, few=10, many=60, steps=20):
    """A test of a state machine, with `few` runs of it or, in the load lane, `many`."""

    @_in_both_lanes(few, many)
    def test(examples):
        run_state_machine_as_test(
            machine, settings=settings(_settings(examples), stateful_step_count=steps)
        )

    return test


def _in_both_lanes(few, many):
    lanes = [few, pytest.param(many, marks=[pytest.mark.load, pytest.mark.slow])]
    return pytest.mark.parametrize("examples", lanes)


def _settings(examples):
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
