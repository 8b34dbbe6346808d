"""Format tables and numbers: Markdown for reports, aligned columns for a terminal."""

import textwrap
from collections.abc import Sequence

from eef_jax.scores import Score

NONE = "-"  # a cell for which there is no value
_TERMINAL = 100  # columns


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int = 1) -> list[str]:
    """Lines of a Markdown table; the first `texts` columns are left-aligned, the others right."""
    return [*head(header, texts=texts), *map(row, rows), ""]


def head(header: Sequence[str], *, texts: int = 1) -> list[str]:
    """The first two lines of a Markdown table, for one whose rows are printed as they come."""
    return [row(header), "|---" * texts + "|---:" * (len(header) - texts) + "|"]


def row(cells: Sequence[object]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(map(number, cells))} |"


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table in aligned columns, for a terminal."""
    cells = [list(header), *(list(map(number, cells)) for cells in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    formats = [f"<{widths[0]}", *(f">{width}" for width in widths[1:])]
    lines = ["  ".join(map(format, line, formats)) for line in cells]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def wrapped(text: str, *, indent: int) -> list[str]:
    """A text in lines that fit a terminal, the second and later ones indented."""
    return textwrap.wrap(
        text,
        _TERMINAL,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def number(value: object) -> str:
    """Format a cell: integers with thousands separators, None as a dash, text unchanged."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def compact(value: object) -> object:
    """A number from a million on in millions; other values unchanged."""
    return f"{value / 1e6:,.1f} M" if isinstance(value, int) and value >= 1e6 else value


def share(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """A share (0-1) as a percentage, with its interval."""
    if value is None:
        return NONE
    ends = f" [{interval[0] * 100:.1f}, {interval[1] * 100:.1f}]" if interval else ""
    return f"{value * 100:.1f} %{ends}"


def win_rate(score: Score | None) -> str:
    """A win rate with its interval."""
    return share(score.win_rate, score.win_interval) if score and score.episodes else NONE


def reward(score: Score | None) -> str:
    """A mean reward with its interval."""
    if not score or not score.episodes:
        return NONE
    low, high = score.reward_interval
    return f"{score.reward:.3f} [{low:.3f}, {high:.3f}]"


def mean(score: Score | None) -> str:
    """A mean reward without its interval."""
    return f"{score.reward:.3f}" if score and score.episodes else NONE


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters: its beginning and its end."""
    if len(text) <= most:
        return text
    end = most // 2 - 1
    return f"{text[: most - end - 3]}...{text[-end:]}"


def code(text: str | None, limit: int = 90) -> str:
    """Format an agent's text as code on one line, escaped for use in a table."""
    if text is None:
        return "(no action)"
    # A line break or a bar would end the cell of a table, a backtick the code.
    line = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{line if len(line) <= limit else line[: limit - 3] + '...'}`"
