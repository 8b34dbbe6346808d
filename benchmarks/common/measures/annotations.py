"""How many annotations give an array's shape and how many say only that it is an array."""

import ast
import collections
import re
from collections.abc import Iterator

from benchmarks.common.measures.checkout import PACKAGE, Checkout, Measure

_DTYPES = re.compile(
    r"(Shaped|Bool|Key|Num|Real|Inexact|Complex|Float|BFloat|Int|UInt|Integer)\d*\Z"
)


def measure(checkout: Checkout) -> list[Measure]:
    """Arrays in annotations, with a shape (`Float[Array, "b t"]`) and without (`jax.Array`)."""
    shaped: collections.Counter[str] = collections.Counter()
    plain: collections.Counter[str] = collections.Counter()
    everywhere = 0  # shapes in annotations and in aliases such as `Head = Callable[...]`
    for module in checkout.under(PACKAGE):
        everywhere += sum(_is_shaped(node) for node in ast.walk(module.tree))
        for annotation in _annotations(module.tree):
            for with_shape in _arrays(annotation):
                (shaped if with_shape else plain)[module.folder] += 1
    folders = sorted({*shaped, *plain})
    return [
        Measure(
            name="arrays annotated with shape / without",
            value=f"{shaped.total()} / {plain.total()}",
            places=tuple(f"{folder}: {shaped[folder]} / {plain[folder]}" for folder in folders),
        ),
        Measure(
            name="shapes outside annotations (aliases)", value=str(everywhere - shaped.total())
        ),
    ]


def arrays_without_shape(tree: ast.Module, *, array_types: frozenset[str]) -> list[int]:
    """Lines on which a type of arrays stands alone, in an annotation, a field or an alias.

    Args:
        tree: a module.
        array_types: names of the types, such as `ndarray`.
    """
    allowed = {
        inner
        for node in ast.walk(tree)
        if _is_shaped(node) or (isinstance(node, ast.Call) and _name(node.func) == "isinstance")
        for inner in ast.walk(node)
    }
    return sorted(
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and _name(node) in array_types
        and node not in allowed
    )


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        annotation = None
        if isinstance(node, ast.arg | ast.AnnAssign):
            annotation = node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            annotation = node.returns
        if annotation is not None:
            yield annotation


def _arrays(node: ast.AST) -> Iterator[bool]:
    """For each array inside an annotation whether it has a shape."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:  # an annotation in quotes
            yield from _arrays(ast.parse(node.value, mode="eval").body)
        except SyntaxError:  # a value of a Literal
            return
    elif _is_shaped(node):
        yield True
    elif _name(node) == "Array":
        yield False
    else:
        for child in ast.iter_child_nodes(node):
            yield from _arrays(child)


def _is_shaped(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Subscript)
        and _DTYPES.match(_name(node.value)) is not None
        and isinstance(node.slice, ast.Tuple)
    )


def _name(node: ast.AST) -> str:
    """The last part of a dotted name; empty for any other expression."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
