"""Circles, floors and flat modules of a small tree."""

from benchmarks.common.measures import structure
from tests.benchmarks.common.measures import trees

CONTRACT = """
[[tool.importlinter.contracts]]
type = "layers"
containers = ["eef_jax"]
layers = ["top", "(middle) | other", "low"]
"""


def measured(root, files):
    made = trees.make(root, {"eef_jax/__init__.py": "", **files})
    (root / "pyproject.toml").write_text(CONTRACT)
    return trees.by_name(structure.measure(made))


def test_circles_are_found_and_their_arrows_named(tmp_path):
    rows = measured(
        tmp_path,
        {
            "eef_jax/top.py": "from eef_jax import low",
            "eef_jax/low.py": "def f():\n    import eef_jax.middle",
            "eef_jax/middle.py": "from eef_jax.low import f",
        },
    )
    assert rows["circles of files"].value == "1 (of 2 files)"
    assert "eef_jax.low -> eef_jax.middle" in rows["circles of files"].places
    assert rows["flat modules at the top"].value == "3"
    upward = rows["upward imports"]
    assert upward.places == ("eef_jax.low (floor 0) -> eef_jax.middle (floor 1)",)


def test_relative_imports_count_and_files_on_no_floor_are_named(tmp_path):
    rows = measured(
        tmp_path,
        {"eef_jax/top.py": "from . import low", "eef_jax/low.py": "", "eef_jax/new.py": ""},
    )
    assert rows["imports between files"].value == "1"
    assert rows["files on no floor"].places == ("eef_jax, eef_jax.new",)
    assert rows["circles of files"].value == "0"
