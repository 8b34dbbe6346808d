"""Lengths without comments and docstrings, and the share of comments."""

from benchmarks.common.measures import sizes
from tests.benchmarks.common.measures import trees

SOURCE = '''\
def short():
    """Doc."""
    return 1


def long():
    # why
    a = 1

    return a


class P:
    def abstract(self):
        """Doc."""
        ...
'''


def test_a_functions_length_is_its_code(tmp_path):
    rows = trees.by_name(sizes.measure_lines(trees.make(tmp_path, {"eef_jax/a.py": SOURCE})))
    quantiles = rows["lines of a function: median / p90 / max"]
    assert quantiles.value == "1.5 / 2 / 2"
    assert quantiles.places == ("eef_jax/a.py:6 long: 2", "eef_jax/a.py:1 short: 1")
    assert rows["functions over 25 lines"].value == "0 of 2"


def test_comments_are_a_share_of_code(tmp_path):
    total, *_ = sizes.measure_comments(
        trees.make(tmp_path, {"eef_jax/a.py": "# why\nx = 1\ny = 2\n"})
    )
    assert total.value == "50.0 (1 of 2)"
