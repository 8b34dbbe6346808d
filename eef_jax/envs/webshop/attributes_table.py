"""The attributes file as a table on the disk, for the time of an import.

It is in another order than the products, so each product looks its entry up; a table with a small
cache takes the same memory for a million entries as for a thousand.
"""

import json
import pathlib
import sqlite3
from collections.abc import Mapping
from typing import Any, Self

from eef_jax.envs.webshop.json_stream import Record, iter_records
from eef_jax.errors import DataError


class AttributesTable:
    """Entries of an attributes file by asin; a context manager.

    Args:
        path: the attributes file.
        scratch: folder for the table.
    """

    def __init__(self, path: str, scratch: pathlib.Path):
        self._path = path
        self._table = sqlite3.connect(scratch / "labels", isolation_level=None)
        self._table.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16000;"
            "CREATE TABLE labels (asin TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;"
            "CREATE TABLE seen (asin TEXT PRIMARY KEY) WITHOUT ROWID; BEGIN"
        )
        self._entries = 0
        for record in iter_records(path, dict, "WebShop attributes"):
            fields = (json.dumps(record.key), json.dumps(record._replace(key="")))
            self._table.execute("INSERT OR REPLACE INTO labels VALUES (?, ?)", fields)
            self._entries += 1
        self._found = self._missed = 0

    def __call__(self, asin: str) -> Mapping[str, Any]:
        """An asin's attributes and instruction; empty where the file leaves it out.

        Raises:
            DataError: they are of the wrong kind.
        """
        key = (json.dumps(asin),)
        row = self._table.execute("SELECT value FROM labels WHERE asin = ?", key).fetchone()
        if row is None:
            self._missed += 1
            return {}
        self._found += 1
        entry = Record(*json.loads(row[0]))
        if complaint := _complaint(entry.value):
            raise DataError(
                f"{self._path}: record {entry.number} (line {entry.line}), asin {asin}: {complaint}"
            )
        return entry.value

    def is_new(self, asin: str) -> bool:
        """Whether this is not asked about an asin that was asked about before."""
        return self._table.execute("INSERT OR IGNORE INTO seen VALUES (?)", (asin,)).rowcount > 0

    def coverage(self, products: str) -> dict[str, int]:
        """How many products have labels.

        Raises:
            DataError: none, though there are both.
        """
        if self._missed and not self._found and self._entries:
            raise DataError(
                f"{self._path}: none of its {self._entries} asins is among the products of "
                f"{products}; do the files belong together?"
            )
        return {"products without attributes": self._missed}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._table.close()


def _complaint(value: Any) -> str:
    """What is wrong with an entry; "": nothing."""
    if not isinstance(value, dict):
        return f"{value!r}, expected an object with attributes and instruction"
    for name in ("attributes", "instruction_attributes"):
        texts = value.get(name) or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return f"{name} is {texts!r}, expected a list of texts"
    if not isinstance(value.get("instruction", ""), str | None):
        return f"instruction is {value['instruction']!r}, expected a text"
    return ""
