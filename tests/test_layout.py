"""The layout: no circular imports, every module on a floor, and WORKSPACE.md's map is complete.

The graph is that of `benchmarks.common.measures`: every import in the syntax tree counts, those
inside functions and under `if TYPE_CHECKING:` too.
"""

import ast
import pathlib

import pytest

from benchmarks.common.measures import structure
from benchmarks.common.measures.checkout import Document, Module, read

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def modules():
    return read(ROOT).under("eef_jax")


@pytest.fixture(scope="module")
def graph(modules):
    return structure.import_graph(modules)


def module(name, code, *, is_package=False):
    """A module of a made-up tree."""
    nothing = frozenset()
    return Module(
        name=name,
        is_package=is_package,
        document=Document(path="", text=code, prose="", code=code),
        tree=ast.parse(code),
        code_lines=nothing,
        comment_lines=nothing,
    )


def test_imports_in_functions_and_for_types_count():
    tree = [
        module("p", "", is_package=True),
        module("p.a", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import b"),
        module("p.b", "def f():\n    from p.c import g\n    return g"),
        module("p.c", "from . import a"),
        module("p.d", "import p.a\nfrom p.c import name"),
    ]
    found = structure.import_graph(tree)
    assert found == {
        "p": set(),
        "p.a": {"p.b"},
        "p.b": {"p.c"},
        "p.c": {"p.a"},
        "p.d": {"p.a", "p.c"},
    }
    assert structure.circles(found) == [["p.a", "p.b", "p.c"]]


def test_every_module_is_on_a_floor(modules, graph):
    floors = {
        name
        for layers in structure.layers((ROOT / "pyproject.toml").read_text("utf-8"))
        for name in layers
    }

    def has_floor(name):
        parts = name.split(".")
        return any(".".join(parts[:n]) in floors for n in range(1, len(parts) + 1))

    without = {m.name: m for m in modules if not has_floor(m.name)}
    # Packages spread over several floors, such as eef_jax.data, cannot be on one themselves.
    assert [n for n, m in without.items() if not m.is_package] == []
    assert {n: imported for n in without if (imported := graph[n])} == {}
