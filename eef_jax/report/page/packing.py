"""Packs values for the page: JSON in compressed chunks, which a browser unpacks when needed.

Base64 holds nothing that ends a script element, so no text of a trajectory is ever markup.
"""

import base64
import gzip
import json
from collections.abc import Iterable
from typing import Any

from eef_jax.text.tokenizer import without_surrogates

CHUNK_BYTES = 400_000  # of a chunk's texts: what one look at a trajectory has to unpack


def packed(value: Any) -> str:
    """A JSON value, compressed, as base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    data = without_surrogates(text).encode()
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


class Chunks:
    """Collects records, and packs them by the chunk.

    Equal texts of a chunk are stored once.

    Attributes:
        done: the packed chunks; all of them after `close`.
        size: characters of `done`.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.size = 0
        self._records: list[Any] = []
        self._texts: dict[str, int] = {}
        self._bytes = 0

    def text(self, text: str) -> int:
        """The number of a text in the open chunk."""
        number = self._texts.get(text)
        if number is None:
            number = self._texts[text] = len(self._texts)
            self._bytes += len(text)
        return number

    def add(self, record: Any) -> tuple[int, int]:
        """Add a record whose texts are numbers of `text`; returns its chunk and its place in it."""
        place = len(self.done), len(self._records)
        self._records.append(record)
        if self._bytes >= CHUNK_BYTES:
            self.close()
        return place

    def close(self) -> None:
        """Pack the open chunk."""
        if self._records:
            self.done.append(packed({"texts": list(self._texts), "records": self._records}))
            self.size += len(self.done[-1])
        self._records, self._texts, self._bytes = [], {}, 0


def columns(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows of equal keys as one list for each key."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return found
