"""Text of others (pages, answers, names, errors): what is printed of it, and what is stored."""

import copy
import logging
import re
import sys
from typing import Any, TextIO

# All controls but tab and line break, halves of surrogate pairs, and what turns text around.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_PAIR = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")


def printable(text: object) -> str:
    """A text for a terminal: controls, and so escape sequences, become visible escapes.

    Line breaks and tabs stay; a text of others that belongs on one line goes through `one_line`.
    """
    return _UNSAFE.sub(_escape, str(text))


def one_line(text: object) -> str:
    """A text for a line of a terminal: `printable`, with line breaks and tabs as escapes too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def show(text: object = "", *, file: TextIO | None = None) -> None:
    """Print a text as `printable`; the only way that this package prints."""
    print(printable(text), file=sys.stdout if file is None else file, flush=True)


def joined(text: str) -> str:
    """A text with each pair of surrogates as the character that it stands for.

    JSON cannot tell the two apart: without this a text may be read back as another one.
    """
    return _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)


class LogFormatter(logging.Formatter):
    """Messages as they are, each argument on one line, escapes visible."""

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_argument, record.args))
        elif record.args:
            record.args = {name: _argument(value) for name, value in record.args.items()}
        return printable(super().format(record))


class _OneLine:
    """Any value, whose text is one line."""

    def __init__(self, value: object):
        self._value = value

    def __str__(self) -> str:
        return one_line(self._value)

    def __repr__(self) -> str:
        return one_line(repr(self._value))


def _argument(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else _OneLine(value)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
