"""The terminal: its width and colours, and texts of others as nothing but text.

Without a terminal rich prints plain text of 80 columns; `COLUMNS`, `NO_COLOR` and `FORCE_COLOR`
hold.
"""

import dataclasses
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions
from rich.style import Style
from rich.text import Text

from eef_jax.untrusted import one_line

STYLES = {
    "kept": "green",
    "own": "bold green",
    "harmful": "red",
    "context": "cyan",
    "unused": "dim",
    "passed": "bold green",
    "failed": "bold red",
    "unlabelled": "bold dim",
}


def console() -> Console:
    """The standard output, on which no text is read as markup, emoji or something to highlight."""
    return Console(markup=False, emoji=False, highlight=False)


def text(value: object, style: str = "") -> Text:
    """A text of others on one line: escapes visible, markup not read."""
    return Text(one_line(value), style=style)


@dataclasses.dataclass(frozen=True, slots=True)
class Indented:
    """A paragraph some columns from the left; unlike rich's padding without spaces at its right."""

    text: Text
    columns: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in self.text.wrap(console, max(1, options.max_width - self.columns)):
            line.rstrip()
            yield Text.assemble(" " * self.columns, line)


Part = Text | str | tuple[str, str | Style]


def line(*parts: Part, indent: int = 0) -> Indented:
    """A paragraph.

    Args:
        parts: texts of others as `text` makes them; this package's own as they are, or with a
            style.
        indent: columns from the left.
    """
    return Indented(Text.assemble(*parts), indent)
