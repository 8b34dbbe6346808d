"""The layout: no circular imports, every module on a floor, a complete map, and links that exist.

The graph is that of `benchmarks.common.measures`: every import in the syntax tree counts, those
inside functions and under `if TYPE_CHECKING:` too.
"""

import ast
import functools
import pathlib
import re
import subprocess
import tomllib

import pytest

from benchmarks.common.measures import structure
from benchmarks.common.measures.annotations import arrays_without_shape
from benchmarks.common.measures.checkout import Document, Module, read

DOC_FOLDERS = ("docs", "eef_jax", "tests")
ROOT = pathlib.Path(__file__).parents[1]
DOCS = [*ROOT.glob("*.md"), *(p for d in DOC_FOLDERS for p in ROOT.glob(f"{d}/**/*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)+/?|[\w-]+\.py)`")
COMMAND = re.compile(r"python -m ((?:eef_jax|benchmarks|pretrain|tests)[\w.]*)")
SUFFIXES = (".py", ".md", ".sh", ".sbatch", ".yaml", ".json", ".svg", "/")
# Paths in a run's work folder or in a user's data, which are in no checkout.
ELSEWHERE = ("runs/", "data/", "expert/", "round_", "<")


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


def test_no_circular_imports(graph):
    assert structure.circles(graph) == []


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


# Packages that compute with arrays, and the names of types that say only that something is one.
ARRAY_PACKAGES = ("eef_jax.engine", "eef_jax.kernels", "eef_jax.models", "eef_jax.train")
ARRAY_TYPES = frozenset(("AnyArray", "Array", "ndarray"))


def test_an_array_without_a_shape_is_found():
    code = """
def f(x: np.ndarray, y: Float[Array, "b t"], z: jax.Array | None) -> dict[str, jax.Array]: ...
Pair = tuple[Array, Float[np.ndarray, " b"]]
assert isinstance(x, jax.Array)
class C:
    x: Int[AnyArray, "b"] | None
    y: AnyArray
"""
    found = arrays_without_shape(ast.parse(code), array_types=ARRAY_TYPES)
    assert found == [2, 2, 2, 3, 7]


def test_arrays_are_annotated_with_shape_and_dtype(modules):
    plain = [
        f"{each.document.path}:{line}"
        for each in modules
        if each.name.startswith(ARRAY_PACKAGES)
        for line in arrays_without_shape(each.tree, array_types=ARRAY_TYPES)
    ]
    assert plain == []


def map_of_the_workspace():
    text = (ROOT / "WORKSPACE.md").read_text("utf-8")
    return text.split("## Map")[1].split("```text")[1].split("```")[0]


def test_the_map_lists_the_package():
    listing = map_of_the_workspace()
    mapped = re.findall(r"^  (\w+(?:\.py|/))", listing, re.MULTILINE)
    here = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "eef_jax").iterdir()
        if path.name not in ("__init__.py", "__pycache__", "py.typed")
    ]
    assert sorted(mapped) == sorted(here)


def test_the_map_lists_the_top_folders():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: data folders cannot be told from the project's")
    command = ["git", "ls-tree", "-d", "--name-only", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    here = [name for name in done.stdout.split() if not name.startswith(".")]
    assert sorted(re.findall(r"^(\w+)/", map_of_the_workspace(), re.MULTILINE)) == here


def test_every_command_line_is_a_console_command(modules):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    commands = [
        f"{each.name}:run"
        for each in modules
        if 'if __name__ == "__main__":\n    run()' in each.document.text
    ]
    assert sorted(scripts.values()) == sorted(commands)


def test_the_configs_of_the_checkout_are_those_of_the_package():
    assert (ROOT / "eef_jax" / "configs").resolve() == ROOT / "configs"


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(params=DOCS, ids=name_of)
def document(request):
    return request.param


def anchors(text):
    """The fragments of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere(document):
    broken = []
    for link in LINK.findall(document.read_text("utf-8")):
        if re.match(r"\w+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (fragment and fragment not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert broken == []


@functools.cache
def python_files():
    """Names of the checkout's Python files, without their folders."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    return {path.name for folder in folders for path in folder.rglob("*.py")}


def test_paths_and_commands_exist(document):
    text = document.read_text("utf-8")
    bases = (ROOT, ROOT / "eef_jax", document.parent)
    missing = [
        path
        for path in PATH.findall(text)
        if path.endswith(SUFFIXES) and not path.startswith(ELSEWHERE)
        if not any((base / path).exists() for base in bases)
        if "/" in path or path not in python_files()
    ]
    for name in COMMAND.findall(text):
        path = ROOT / name.rstrip(".").replace(".", "/")
        if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
            missing.append(f"python -m {name}")
    assert missing == []
