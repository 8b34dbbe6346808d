"""WebShop's JSON files, read record by record, with damage named by file and line.

The files are one list or one object of up to millions of records on a single line; `iter_records`
holds one of them at a time, so its memory does not depend on the file's size.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

from etils import epath

from eef_jax.errors import DataError

CHUNK = 1 << 20  # characters read at a time
LONGEST = 1 << 27  # characters; no record of WebShop comes near, so a longer one is not closed
_ATOM = 12  # characters of the longest literal or escape
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class Record(NamedTuple):
    """One element of a file's list (its key is "") or one entry of its object."""

    number: int  # from 0
    line: int  # of the file, from 1
    key: str
    value: Any


def iter_records(path: str | pathlib.Path, expected: type, what: str) -> Iterator[Record]:
    """Read a JSON file's records one after the other.

    Args:
        path: file to read.
        expected: type of its top level, `list` or `dict`.
        what: description of the file for error messages, e.g. `"goal numbers"`.

    Raises:
        DataError: the file is missing, is not JSON, or holds another type.
    """
    try:
        with epath.Path(path).open("r", encoding="utf-8") as file:
            yield from _Reader(file, path, expected, what).iter_records()
    except OSError as error:
        raise _unreadable(what, path, error) from error
    except UnicodeDecodeError as error:
        raise _invalid(what, path, str(error)) from error


class _Reader:
    """A window on a file's text that moves on as records are taken from it."""

    def __init__(self, file: TextIO, path: str | pathlib.Path, expected: type, what: str):
        self._file, self._path, self._expected, self._what = file, path, expected, what
        self._text, self._at = "", 0  # the window, and a place in it
        self._line, self._counted = 1, 0  # the line of a place that was passed

    def iter_records(self) -> Iterator[Record]:
        """All records, then a check that nothing follows them."""
        named = self._expected is dict
        opening, closing = "{}" if named else "[]"
        sign = self._peek()
        if sign != opening:
            got = {"[": "list", "{": "dict"}.get(sign) or type(self._value(0)).__name__
            raise _wrong_type(self._what, self._path, got, self._expected)
        self._at += 1
        number = 0
        if self._peek() == closing:
            self._at += 1
        else:
            while True:
                self._peek()
                line = self._count()
                key = ""
                if named:
                    key = self._value(number)
                    if not isinstance(key, str):
                        raise self._broken(number, "expected a name in double quotes")
                    self._take(":", number)
                yield Record(number, line, key, self._value(number))
                number += 1
                if self._take("," + closing, number - 1) == closing:
                    break
                self._shrink_window()
        if self._peek():
            raise self._broken(number, "text after its end")

    def _peek(self) -> str:
        """The next character that is not a space; "" at the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._extend_window():
                return self._text[self._at : self._at + 1]

    def _take(self, allowed: str, number: int) -> str:
        sign = self._peek()
        if not sign or sign not in allowed:
            wanted = " or ".join(f"{s!r}" for s in allowed)
            raise self._broken(number, f"expected {wanted}, got {sign!r}")
        self._at += 1
        return sign

    def _value(self, number: int) -> Any:
        """Decode the value that comes next, reading on until all of it is in the window."""
        self._peek()
        before: tuple[str, int] | None = None
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                # A number may go on behind the window: "-1" may be "-1.5e3".
                if len(self._text) - end > _ATOM or not self._extend_window():
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                # What stays wrong with more text is broken; an open string may just be long.
                same = before == (error.msg, error.pos) and "Unterminated" not in error.msg
                same = same and len(self._text) - error.pos > _ATOM
                if same or len(self._text) - self._at > LONGEST or not self._extend_window():
                    self._at = error.pos
                    raise self._broken(number, error.msg) from error
                before = error.msg, error.pos

    def _extend_window(self) -> bool:
        """Make the window longer, twice as long from the present place on; False at the end."""
        more = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._text += more
        return bool(more)

    def _shrink_window(self) -> None:
        """Drop what was taken, now and then, so that the window stays small."""
        if self._at > CHUNK:
            self._count()
            self._text, self._at, self._counted = self._text[self._at :], 0, 0

    def _count(self) -> int:
        """The line of the present place."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _broken(self, number: int, complaint: str) -> DataError:
        text = self._text[max(0, self._at - 30) : self._at + 30]
        where = f"line {self._count()}, record {number}, near {text!r}"
        return _invalid(self._what, self._path, f"{complaint}: {where}")


def _unreadable(what: str, path: str | pathlib.Path, error: OSError) -> DataError:
    return DataError(f"{what}: cannot read {path} ({error.strerror}); give its path")


def _invalid(what: str, path: str | pathlib.Path, complaint: str) -> DataError:
    return DataError(f"{what}: {path} is not valid JSON ({complaint}); fetch it again")


def _wrong_type(what: str, path: str | pathlib.Path, got: str, expected: type) -> DataError:
    return DataError(f"{what}: {path} holds a JSON {got}, expected a {expected.__name__}")
