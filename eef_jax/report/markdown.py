"""Format tables and numbers: Markdown for reports, aligned columns for a terminal.

Texts come from tasks, agents and files, so what is not `Markup` is escaped: no text makes a tag, a
link or a picture, or ends its cell, line or code.
"""

import re
import textwrap
from collections.abc import Sequence

from eef_jax.scores import Score
from eef_jax.untrusted import one_line

NONE = "-"  # a cell for which there is no value
_TERMINAL = 100  # columns
# What Markdown or HTML would read: but for an underscore within a word, which they leave alone.
_SPECIAL = re.compile(
    r"[\\`*\[\]<|~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|^(?=[#>+=-])|^(\d+)([.)])"
)
_ENTITIES = {"<": "&lt;", "&": "&amp;"}


class Markup(str):
    """A text that is Markdown as it is."""

    __slots__ = ()


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int = 1) -> list[str]:
    """Lines of a Markdown table; the first `texts` columns are left-aligned, the others right."""
    return [*head(header, texts=texts), *map(row, rows), ""]


def head(header: Sequence[str], *, texts: int = 1) -> list[str]:
    """The first two lines of a Markdown table, for one whose rows are printed as they come."""
    return [row(header), "|---" * texts + "|---:" * (len(header) - texts) + "|"]


def row(cells: Sequence[object]) -> str:
    """One line of a Markdown table; texts are escaped."""
    return f"| {' | '.join(map(text, cells))} |"


def text(value: object) -> Markup:
    """A value as Markdown that shows it: one line, nothing in it read as Markdown or HTML."""
    if isinstance(value, Markup):
        return value
    shown = number(value)
    if not isinstance(value, str):
        return Markup(shown)
    return Markup(_SPECIAL.sub(_escaped, _spaced(shown)))


def _escaped(found: re.Match[str]) -> str:
    if found[1]:  # the number of a list, which cannot be escaped itself
        return f"{found[1]}\\{found[2]}"
    return _ENTITIES.get(found[0], f"\\{found[0]}")


def _spaced(text: str) -> str:
    """A text on one line, white space as single spaces."""
    return one_line(" ".join(text.split()))


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table in aligned columns, for a terminal."""
    cells = [[one_line(number(cell)) for cell in cells] for cells in (header, *rows)]
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


def share(value: float | None, interval: tuple[float, float] | None = None) -> Markup:
    """A share (0-1) as a percentage, with its interval."""
    if value is None:
        return Markup(NONE)
    ends = f" [{interval[0] * 100:.1f}, {interval[1] * 100:.1f}]" if interval else ""
    return Markup(f"{value * 100:.1f} %{ends}")


def win_rate(score: Score | None) -> Markup:
    """A win rate with its interval."""
    return share(score.win_rate, score.win_interval) if score and score.episodes else Markup(NONE)


def reward(score: Score | None) -> Markup:
    """A mean reward with its interval."""
    if not score or not score.episodes:
        return Markup(NONE)
    low, high = score.reward_interval
    return Markup(f"{score.reward:.3f} [{low:.3f}, {high:.3f}]")


def mean(score: Score | None) -> str:
    """A mean reward without its interval."""
    return f"{score.reward:.3f}" if score and score.episodes else NONE


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters: its beginning and its end."""
    if len(text) <= most:
        return text
    end = most // 2 - 1
    return f"{text[: most - end - 3]}...{text[-end:]}"


def code(text: str | None, limit: int = 90) -> Markup:
    """Format an agent's text as code on one line, escaped for use in a table."""
    if text is None:
        return Markup("(no action)")
    line = _spaced(text)
    line = line if len(line) <= limit else line[: limit - 3] + "..."
    # A backtick would end the code, a bar the cell of a table. A backslash before a bar hides its
    # own escape from some readers, and nothing between backticks is no code.
    line = line.replace("`", "'").replace("\\|", "\\ |").replace("|", "\\|")
    return Markup(f"`{line or ' '}`")
