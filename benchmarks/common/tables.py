"""Markdown tables of what a benchmark says itself, which is not escaped as others' text is."""

from collections.abc import Sequence

from eef_jax.report import markdown


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int = 1) -> list[str]:
    """Lines of a table; the first `texts` columns are left-aligned, the others right."""
    return [*head(header, texts=texts), *map(row, rows), ""]


def head(header: Sequence[str], *, texts: int = 1) -> list[str]:
    """The first two lines of a table."""
    return markdown.head([markdown.Markup(name) for name in header], texts=texts)


def row(cells: Sequence[object]) -> str:
    """One line of a table."""
    return markdown.row([markdown.Markup(c) if isinstance(c, str) else c for c in cells])
