"""The figures that documents show are those in `benchmarks/results`."""

import re

import pytest
from etils import epath

from benchmarks.methods import run as methods
from tests.docs.documents import ROOT

METHODS = ("sft_positive", "rft_x6", "rft_matched", "eef")
SEEDS = range(3)


@pytest.fixture(scope="module")
def table():
    return methods.read_table(epath.Path(methods.RESULTS), "test", METHODS, SEEDS)


def rows(text):
    """Cells of each table row, by the method that the first cell names."""
    found = (re.findall(r"[^|]+", line) for line in text.splitlines() if line.startswith("|"))
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in found}


def test_the_page_of_the_embedded_shop_has_the_table_that_its_command_prints(table):
    assert table.strip() in (ROOT / "docs/results/embedded.md").read_text("utf-8")


def test_the_readmes_table_is_a_part_of_it(table):
    full = rows(table.split("\n\n")[0])
    shown = rows((ROOT / "README.md").read_text("utf-8").split("## Install")[0])
    by_method = {re.sub(r".*\(`|`\)?|`", "", name): cells for name, cells in shown.items()}
    assert {"expert", *METHODS} <= set(by_method)
    header = by_method["method"]
    assert header == ["win rate, 500 tasks", "easy", "hard", "rollouts"]
    for name in ("expert", *METHODS):
        _, win, _, easy, hard, _, rollouts = full[name][:7]
        expected = [win, easy.partition(" [")[0], hard.partition(" [")[0], rollouts]
        assert by_method[name] == expected


def test_the_readmes_two_numbers_are_in_it(table):
    first_screen = (ROOT / "README.md").read_text("utf-8").split("```python")[0]
    numbers = re.findall(r"\*\*(.+?)\*\*", first_screen)
    full = rows(table.split("\n\n")[0])
    assert numbers == [full["eef"][1], full["rft_x6"][1]]
    times = int(full["rft_x6"][6].replace(",", "")) / int(full["eef"][6].replace(",", ""))
    assert f"{times:.1f} times its rollouts" in " ".join(first_screen.split())
