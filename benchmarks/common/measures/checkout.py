"""A checkout as text and syntax trees: what all measures read.

The prose of a Python file (comments and docstrings) is kept apart from its code. Both have the full
length of the file, with spaces in place of the other part, so that an offset means the same place
in either.
"""

import ast
import dataclasses
import io
import itertools
import os
import pathlib
import sys
import tokenize
from collections.abc import Iterator

PACKAGE = "eef_jax"
_SUFFIXES = (".py", ".md", ".sh", ".toml")
_SKIPPED = ("runs", "build", "dist", "__pycache__")
_SELF = "benchmarks/common/measures/"  # its tables hold the very words that are looked for
_NOT_CODE = frozenset(
    (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One row of the table.

    Attributes:
        name: what is measured.
        value: the number, with its unit where it is not a count.
        places: lines that say where the number comes from.
        long: whether the places are printed only on request.
    """

    name: str
    value: str
    places: tuple[str, ...] = ()
    long: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text file.

    Attributes:
        path: from the checkout's root, with forward slashes.
        text: all of it.
        prose: comments and docstrings of a Python file, all of a Markdown file.
        code: the rest.
    """

    path: str
    text: str
    prose: str
    code: str

    def line(self, number: int) -> str:
        """A line of the text, counted from 1."""
        return self.text.split("\n")[number - 1]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A Python file.

    Attributes:
        name: dotted; that of its package for an `__init__.py`.
        is_package: whether it is an `__init__.py`.
        document: its text.
        tree: its syntax tree.
        code_lines: numbers of the lines with code on them.
        comment_lines: numbers of the lines with a comment on them, alone or after code.
    """

    name: str
    is_package: bool
    document: Document
    tree: ast.Module
    code_lines: frozenset[int]
    comment_lines: frozenset[int]

    @property
    def folder(self) -> str:
        """The package it is in, which is itself for an `__init__.py`."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """All text files of a tree, and its Python files parsed."""

    root: pathlib.Path
    documents: tuple[Document, ...]
    modules: tuple[Module, ...]

    def under(self, *packages: str) -> list[Module]:
        """The Python files of packages, by their dotted names."""
        prefixes = tuple(f"{package}." for package in packages)
        return [m for m in self.modules if m.name in packages or m.name.startswith(prefixes)]


def read(root: pathlib.Path) -> Checkout:
    """Read a tree; files that do not parse are named on stderr and left out."""
    documents, modules = [], []
    for path in _paths(root):
        text = (root / path).read_text("utf-8", errors="replace")
        if not path.endswith(".py"):
            prose, code = (text, "") if path.endswith(".md") else ("", text)
            documents.append(Document(path=path, text=text, prose=prose, code=code))
            continue
        try:
            module = _parse(path, text)
        except (SyntaxError, tokenize.TokenError) as error:
            print(f"left out: {path}: {error}", file=sys.stderr)
            continue
        documents.append(module.document)
        modules.append(module)
    return Checkout(root=root, documents=tuple(documents), modules=tuple(modules))


def _paths(root: pathlib.Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        # Changed in place: os.walk then stays out of .venv and .git.
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _SKIPPED)
        for file in sorted(files):
            path = (pathlib.Path(folder) / file).relative_to(root).as_posix()
            if path.endswith(_SUFFIXES) and not path.startswith(_SELF):
                yield path


def _parse(path: str, text: str) -> Module:
    tree = ast.parse(text)
    lines = text.split("\n")
    starts = [0, *itertools.accumulate(len(line) + 1 for line in lines)]
    docstrings = _docstrings(tree)
    spans: list[tuple[int, int]] = []
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (first, left), (last, right) = token.start, token.end
        if token.type == tokenize.COMMENT:
            comments.add(first)
        if token.type == tokenize.COMMENT or token.start in docstrings:
            spans.append((starts[first - 1] + left, starts[last - 1] + right))
        elif token.type not in _NOT_CODE:
            # A string may have blank lines inside, which do not count as code.
            code.update(n for n in range(first, last + 1) if lines[n - 1].strip())
    parts = path.removesuffix(".py").split("/")
    return Module(
        name=".".join(parts[:-1] if parts[-1] == "__init__" else parts),
        is_package=parts[-1] == "__init__",
        document=_split(path, text, spans),
        tree=tree,
        code_lines=frozenset(code),
        comment_lines=frozenset(comments),
    )


def _docstrings(tree: ast.Module) -> set[tuple[int, int]]:
    """Where strings begin that stand as statements: docstrings, of attributes too."""
    return {
        (node.value.lineno, node.value.col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _split(path: str, text: str, spans: list[tuple[int, int]]) -> Document:
    prose, code, done = [], [], 0
    for start, end in spans:
        prose += [_blank(text[done:start]), text[start:end]]
        code += [text[done:start], _blank(text[start:end])]
        done = end
    prose.append(_blank(text[done:]))
    code.append(text[done:])
    return Document(path=path, text=text, prose="".join(prose), code="".join(code))


def _blank(text: str) -> str:
    return "\n".join(" " * len(line) for line in text.split("\n"))
