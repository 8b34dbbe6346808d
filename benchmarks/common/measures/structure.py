"""Structure of the package: flat modules, circles of files, and imports that go up a floor.

Every import counts, those under `if TYPE_CHECKING:` and inside functions included. Floors are the
`layers` contracts of import-linter in pyproject.toml.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping

from benchmarks.common.measures.checkout import PACKAGE, Checkout, Measure, Module

_Graph = dict[str, set[str]]


def measure(checkout: Checkout) -> list[Measure]:
    """Modules and packages, circles, and upward imports of the package."""
    modules = checkout.under(PACKAGE)
    graph = import_graph(modules)
    flat = sorted(m.name for m in modules if m.folder == PACKAGE and not m.is_package)
    packages = [m.name for m in modules if m.is_package and m.name != PACKAGE]
    top = sum(name.count(".") == 1 for name in packages)
    found = circles(graph)
    files = ", ".join(str(len(circle)) for circle in found)
    return [
        Measure(name="flat modules at the top", value=str(len(flat)), places=(", ".join(flat),)),
        Measure(name="packages at the top / at all levels", value=f"{top} / {len(packages)}"),
        Measure(name="files", value=str(len(modules))),
        Measure(name="imports between files", value=str(sum(map(len, graph.values())))),
        Measure(
            name="circles of files",
            value=f"{len(found)} (of {files} files)" if found else "0",
            places=tuple(line for circle in found for line in _arrows(circle, graph)),
        ),
        *_floors(checkout, graph),
    ]


def import_graph(modules: list[Module]) -> _Graph:
    """The modules that each module imports, by their names and without itself."""
    known = {module.name for module in modules}
    return {
        module.name: {name for name in _imported(module, known) if name in known} - {module.name}
        for module in modules
    }


def _imported(module: Module, known: set[str]) -> Iterator[str]:
    """Names of what a module imports; a submodule is meant wherever there is one of that name."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module)
            for alias in node.names:
                # Python runs the packages around a submodule too; only what is named counts here.
                submodule = f"{base}.{alias.name}"
                yield submodule if submodule in known else base


def _base(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    parts = module.folder.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node, each sorted, the largest first."""
    # Quadratic, but a tree has a few hundred files, and it is shorter than Tarjan's algorithm.
    reached = {name: _reached(name, graph) for name in graph}
    components = {
        frozenset(other for other in reached[name] if name in reached[other]) for name in graph
    }
    found = (sorted(component) for component in components if len(component) > 1)
    return sorted(found, key=lambda circle: (-len(circle), circle))


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def _arrows(circle: list[str], graph: _Graph) -> Iterator[str]:
    """The imports that hold a circle together."""
    for name in circle:
        yield f"{name} -> {', '.join(sorted(graph[name].intersection(circle)))}"
    yield ""


def _floors(checkout: Checkout, graph: _Graph) -> list[Measure]:
    contracts = layers((checkout.root / "pyproject.toml").read_text("utf-8"))
    # Files outside every layer are skipped, as import-linter does; the next row counts them.
    upward = {
        f"{name} (floor {floors[low]}) -> {other} (floor {floors[high]})"
        for floors in contracts
        for name, others in graph.items()
        for other in others
        if (low := _prefix(name, floors)) and (high := _prefix(other, floors))
        if floors[low] < floors[high]
    }
    without = sorted(name for name in graph if not any(_prefix(name, f) for f in contracts))
    return [
        Measure(name="upward imports", value=str(len(upward)), places=tuple(sorted(upward))),
        Measure(
            name="files on no floor",
            value=f"{len(without)} of {len(graph)}",
            places=(", ".join(without),),
        ),
    ]


def layers(pyproject: str) -> list[dict[str, int]]:
    """The floor of each module that a `layers` contract names, 0 the lowest, a dict a contract."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    found = []
    for contract in contracts:
        if contract["type"] != "layers":
            continue
        found.append(
            {
                f"{container}.{name}" if container else name: floor
                for floor, layer in enumerate(reversed(contract["layers"]))
                # Brackets and the signs between modules do not change a module's floor.
                for name in re.findall(r"[\w.]+", layer)
                for container in contract.get("containers", [""])
            }
        )
    return found


def _prefix(name: str, floors: Mapping[str, int]) -> str | None:
    """The longest module of the floors that is this module or a package around it."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in floors), None)
