"""What the page is made of, as plain values: sections of notes, figures, tables and cases."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A text that leads to a place of the page, by the part of the address after `#`."""

    text: str
    target: str


Cell = object  # a number, a text, a Link, or None for nothing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows.
        header: names of the columns.
        rows: the cells.
        texts: number of columns, from the left, that hold texts; the others hold numbers.
        strong: numbers of the rows that matter most, from 0.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    texts: int = 1
    strong: Sequence[int] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing with its numbers.

    Attributes:
        caption: what it shows, in a sentence.
        svg: the drawing.
        numbers: what is drawn.
    """

    caption: str
    svg: str
    numbers: Table


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of the page.

    Attributes:
        id: of the section, for links.
        title: its heading.
        notes: paragraphs before everything else.
        figures: drawings.
        tables: open tables.
        links: where there is more.
        folded: tables that the reader unfolds.
    """

    id: str
    title: str
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    links: Sequence[Link] = ()
    folded: Sequence[Table] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The sections of one run.

    Attributes:
        label: name of the run.
        warnings: what a reader should know before the numbers.
        sections: in their order.
    """

    label: str
    warnings: Sequence[str]
    sections: Sequence[Section]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole page but the trajectories.

    Attributes:
        title: names the run or runs.
        sentence: the result.
        details: what the result is compared with, a sentence each.
        curve: the win rate over rounds.
        results: the policies of all runs.
        parts: one for each run.
        shown: which trajectories the page holds, in a sentence.
    """

    title: str
    sentence: str
    details: Sequence[str]
    curve: Figure
    results: Section
    parts: Sequence[Part]
    shown: str
