"""Public names that several modules define, names that nothing refers to, and names to replace.

References are found by their words alone: a name counts as used where any code, Markdown file,
script or TOML file has the same word outside its definition. What is listed as unused is a
candidate for removal, and a name that is a common word is hardly ever listed.
"""

import ast
import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping

from benchmarks.common.measures.checkout import PACKAGE, Checkout, Measure, Module

_SHARED = frozenset(("make", "main", "save", "load", "read", "write"))  # pairs and plug-ins
_OURS = (PACKAGE, "benchmarks", "configs", "pretrain")

# Modules, and functions and classes, that have a better name by now, by the package they are in.
_OLD_MODULES = {
    ".analysis": "work fitting",
    ".envs.webshop": "choose labels source",
    ".models": "depth layout filling room names tensors",
    ".report": "borders cases",
}
_OLD_NAMES = {
    "": "_forth _back kept ways Learner",
    ".engine": "Shapes Job Draws Steps",
    ".methods": "Pool",
    ".models": "held settled written common outline canonical joined faults Spot Rows Chunks",
    ".rollout": "_Table _Attempt",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Definition:
    name: str
    module: Module
    node: ast.stmt
    in_class: bool

    @property
    def place(self) -> str:
        return f"{self.module.document.path}:{self.node.lineno} {self.name}"

    @property
    def is_top_level(self) -> bool:
        """Whether it is a function or class of the module itself."""
        return not self.in_class and not isinstance(self.node, ast.Assign | ast.AnnAssign)


def measure(checkout: Checkout) -> list[Measure]:
    """Names in several modules, names without a use, and names that should be replaced."""
    definitions = [d for module in checkout.under(*_OURS) for d in _definitions(module)]
    in_package = [d for d in definitions if d.module.name.split(".")[0] == PACKAGE]
    unused, tests_only = _unused(checkout, definitions)
    rows = {
        "public names defined in several modules": list(_several(in_package)),
        "names without a reference": unused,
        "names that only tests refer to": tests_only,
        "names to be replaced": sorted([*_old_modules(checkout), *_old_names(in_package)]),
    }
    return [
        Measure(name=name, value=str(len(places)), places=tuple(places))
        for name, places in rows.items()
    ]


def _definitions(module: Module) -> Iterator[_Definition]:
    """What stands at a module's level, and methods and properties of its classes."""
    for node in module.tree.body:
        for name in _bound(node):
            yield _Definition(name=name, module=module, node=node, in_class=False)
    for outer in ast.walk(module.tree):
        if isinstance(outer, ast.ClassDef):
            for node in outer.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield _Definition(name=node.name, module=module, node=node, in_class=True)


def _bound(node: ast.stmt) -> Iterator[str]:
    """Names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def _several(definitions: Iterable[_Definition]) -> Iterator[str]:
    """Public functions and classes that more than one module defines, with the modules."""
    modules: dict[str, set[str]] = collections.defaultdict(set)
    for each in definitions:
        if each.is_top_level and not each.name.startswith("_"):
            modules[each.name].add(each.module.name)
    for name, found in sorted(modules.items()):
        if len(found) > 1 and name not in _SHARED:
            yield f"{name}: {', '.join(sorted(found))}"


def _unused(checkout: Checkout, definitions: list[_Definition]) -> tuple[list[str], list[str]]:
    """Definitions whose name occurs nowhere else, and those whose name only tests say."""
    by_name: dict[str, list[_Definition]] = collections.defaultdict(list)
    for each in definitions:
        if not (each.name.startswith("__") or each.name == "_"):
            by_name[each.name].append(each)
    uses = _occurrences(checkout, set(by_name))
    unused: list[str] = []
    tests_only: list[str] = []
    for name, defined in by_name.items():
        own = {place for each in defined for place in _own_lines(each, alone=len(defined) == 1)}
        used = {path for path, line in uses[name] if (path, line) not in own}
        if all(path.startswith("tests/") for path in used):
            (tests_only if used else unused).extend(each.place for each in defined)
    return unused, tests_only


def _occurrences(checkout: Checkout, names: set[str]) -> dict[str, set[tuple[str, int]]]:
    """Path and line of every word that is one of the names; a comment's words do not count."""
    found: dict[str, set[tuple[str, int]]] = {name: set() for name in names}
    for document in checkout.documents:
        # A docstring that mentions a name does not use it; a page under docs counts as a use.
        text = document.code if document.path.endswith(".py") else document.text
        for number, line in enumerate(text.split("\n"), 1):
            for word in names.intersection(re.findall(r"\w+", line)):
                found[word].add((document.path, number))
    return found


def _own_lines(definition: _Definition, *, alone: bool) -> Iterator[tuple[str, int]]:
    """Lines on which a name is defined, not used: its head, or all of it for the only definition.

    Where several classes define a method, the body of one may call that of another.
    """
    node = definition.node
    last = (node.end_lineno or node.lineno) if alone else node.lineno
    for line in range(node.lineno, last + 1):
        yield definition.module.document.path, line


def _old_modules(checkout: Checkout) -> Iterator[str]:
    for module in checkout.under(PACKAGE):
        folder, _, name = module.name.rpartition(".")
        if not module.is_package and name in _old(folder, _OLD_MODULES):
            yield module.document.path


def _old_names(definitions: Iterable[_Definition]) -> Iterator[str]:
    for each in definitions:
        if each.is_top_level and each.name in _old(each.module.name, _OLD_NAMES):
            yield each.place


def _old(place: str, table: Mapping[str, str]) -> set[str]:
    """The names that a table has for a module or package and for the packages around it."""
    return {
        name
        for area, names in table.items()
        if f"{place}.".startswith(f"{PACKAGE}{area}.")
        for name in names.split()
    }
