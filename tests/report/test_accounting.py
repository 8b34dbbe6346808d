"""Counts that add up from stage to stage."""

from types import SimpleNamespace

import pytest

from eef_jax.report.accounting import conservation_checks

SELECT = {
    "selections": 5,
    "examples": 4,
    "unweighted": 1,
    "too_long": 0,
    "steps": 20,
    "weighted_steps": 12,
    "tokens": 400,
    "weighted_tokens": 60,
}
TUNE = {"steps": 3, "tokens": 800, "weighted_tokens": 120, "padding": 0.1}


@pytest.mark.parametrize(("mixed", "learned", "fine"), [(0, 4, True), (2, 6, True), (2, 4, False)])
def test_chats_that_are_mixed_in_are_counted(mixed, learned, fine):
    counts = {
        "round_0/select": SELECT | ({"conversations": mixed} if mixed else {}),
        "round_0/tune": TUNE | {"examples": learned},
    }
    select, tune = conservation_checks(SimpleNamespace(manifests=counts, counts=counts.get))[-3:-1]
    assert ("2 chats mixed in" in select) == bool(mixed)
    assert select.rstrip(" |").endswith("yes")
    assert tune.rstrip(" |").endswith("yes" if fine else "**NO**")
