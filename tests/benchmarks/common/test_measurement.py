"""Measured values against their bounds, as a table."""

import pytest

from benchmarks.common.measurement import Measurement, table


@pytest.mark.parametrize(
    ("value", "at_most", "within"),
    [(1.0, True, True), (1.1, True, False), (1.0, False, True), (0.9, False, False)],
)
def test_a_bound_is_kept_from_its_side(value, at_most, within):
    made = Measurement(name="x", value=value, unit="s", bound=1.0, at_most=at_most)
    assert made.within == within


def test_the_table_says_what_was_wanted_and_whether_it_came_out():
    rows = table(
        [
            Measurement(name="memory", value=0.51239, unit="GiB", bound=2, at_most=True),
            Measurement(name="rate", value=1234.5, unit="tokens/s", bound=2000, at_most=False),
        ]
    )
    _, _, memory, rate = rows.splitlines()
    assert memory == "| memory | 0.512 GiB | <= 2 GiB | yes |"
    assert rate == "| rate | 1,234 tokens/s | >= 2,000 tokens/s | NO |"
