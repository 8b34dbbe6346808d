"""Lengths of functions and files, and the share of comments, for the package.

A function's length is its lines of code without signature and docstring; comments and blank lines
do not count, so that explaining a function does not make it long. What has no body but a docstring
or `...` (a protocol's methods) is left out. A function inside another counts for both.
"""

import ast
import collections
import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence

from benchmarks.common.measures.checkout import PACKAGE, Checkout, Measure, Module

FUNCTION_BOUND = 25
FILE_BOUNDS = (250, 500)
_LONGEST = 5
_SMALL = 50  # a package with fewer lines of code has no meaningful share of comments


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Function:
    place: str
    code: int
    span: int


def measure_lines(checkout: Checkout) -> list[Measure]:
    """Quantiles of the lengths of functions and files, and how many are above the bounds."""
    modules = checkout.under(PACKAGE)
    return [*_function_rows(modules), *_file_rows(modules)]


def _function_rows(modules: list[Module]) -> Iterator[Measure]:
    functions = [function for module in modules for function in _functions(module)]
    functions.sort(key=lambda function: -function.code)
    places = tuple(f"{function.place}: {function.code}" for function in functions)
    longer = sum(function.code > FUNCTION_BOUND for function in functions)
    spans = sum(function.span > FUNCTION_BOUND for function in functions)
    yield Measure(
        name="lines of a function: median / p90 / max",
        value=_quantiles([function.code for function in functions]),
        places=places[:_LONGEST],
    )
    yield Measure(
        name=f"functions over {FUNCTION_BOUND} lines",
        value=f"{longer} of {len(functions)}",
        places=places[:longer],
        long=True,
    )
    yield Measure(name="the same with comments and blank lines", value=str(spans))


def _file_rows(modules: list[Module]) -> Iterator[Measure]:
    files = [(len(m.document.text.splitlines()), m.document.path) for m in modules]
    files.sort(reverse=True)
    yield Measure(
        name="lines of a file: median / p90 / max",
        value=_quantiles([length for length, _ in files]),
        places=tuple(f"{path}: {length}" for length, path in files[:_LONGEST]),
    )
    for bound in FILE_BOUNDS:
        above = sum(length > bound for length, _ in files)
        yield Measure(name=f"files over {bound} lines", value=str(above))


def _functions(module: Module) -> Iterator[_Function]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = [statement for statement in node.body if not _is_constant(statement)]
        if not body:
            continue
        # A comment between docstring and first statement is part of the body.
        lines = range(_first_line(node), (node.end_lineno or node.lineno) + 1)
        yield _Function(
            place=f"{module.document.path}:{node.lineno} {node.name}",
            code=sum(number in module.code_lines for number in lines),
            span=len(lines),
        )


def _is_constant(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring or `...`."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The line after the docstring, or of the first statement where there is none."""
    if ast.get_docstring(node, clean=False) is None:
        return node.body[0].lineno
    return (node.body[0].end_lineno or node.lineno) + 1


def _quantiles(values: Sequence[int]) -> str:
    ordered = sorted(values)
    p90 = ordered[math.ceil(0.9 * len(ordered)) - 1]
    return f"{statistics.median(ordered):g} / {p90} / {ordered[-1]}"


def measure_comments(checkout: Checkout) -> list[Measure]:
    """Lines with a comment in 100 lines of code: of all, and of the packages that have least."""
    code: collections.Counter[str] = collections.Counter()
    comments: collections.Counter[str] = collections.Counter()
    for module in checkout.under(PACKAGE):
        code[module.folder] += len(module.code_lines)
        comments[module.folder] += len(module.comment_lines)
    shares = {
        folder: 100 * comments[folder] / lines for folder, lines in code.items() if lines >= _SMALL
    }
    lowest = sorted(shares, key=lambda folder: shares[folder])[:_LONGEST]
    total = 100 * comments.total() / code.total()
    return [
        Measure(
            name="comment lines in 100 code lines",
            value=f"{total:.1f} ({comments.total()} of {code.total()})",
            places=tuple(f"{folder}: {share:.1f}" for folder, share in sorted(shares.items())),
        ),
        *(
            Measure(
                name=f"of the lowest: {folder}",
                value=f"{shares[folder]:.1f} ({comments[folder]} of {code[folder]})",
            )
            for folder in lowest
        ),
    ]
