"""Training metrics as JSON lines: `log(step, scalars)` appends one line."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, SupportsFloat

from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import files


class MetricsWriter:
    """Writes scalars to a JSONL file; use it as a context manager or close it.

    On a local disk each line is written at once. An object store cannot append: there all lines are
    written by `mark` and on closing. Without a path nothing is written (only the lead of a run
    writes metrics). A new writer replaces what is at the path, unless `rewind` keeps a part.

    Example:
        >>> with MetricsWriter(folder / "metrics.jsonl") as metrics:
        ...     metrics.log(10, {"loss": 0.5, "tokens_per_second": 8000})
    """

    def __init__(self, path: epath.PathLike | None):
        self._path = None if path is None else epath.Path(path)
        self._data = bytearray()  # all lines: those of an object store are written together
        self._stored = 0  # bytes of them
        self._file: BinaryIO | None = None

    def log(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        """Write one line: the step and the scalars (Python, NumPy or JAX numbers).

        Values that are not finite are written as text ("nan", "inf"), because JSON has no such
        numbers.
        """
        row = json.dumps({"step": int(step)} | {name: _number(x) for name, x in scalars.items()})
        self._data += f"{row}\n".encode()
        if self._path is not None and files.is_local(self._path):
            self._append()

    def mark(self) -> dict[str, Any]:
        """Make all lines so far durable, and return what `rewind` goes back to."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        self._write()
        return {"bytes": len(self._data), "sha256": hashlib.sha256(self._data).hexdigest()}

    def check(self, mark: Mapping[str, Any]) -> None:
        """Check that the file begins with what it held at a mark.

        Raises:
            DataError: it does not.
        """
        self._kept(mark)

    def rewind(self, mark: Mapping[str, Any] | None) -> None:
        """Continue the file of an earlier writer from a mark; None: from the start.

        Raises:
            DataError: the file is not as it was at the mark.
        """
        self._data = bytearray(b"" if mark is None else self._kept(mark))
        if self._path is not None:
            self._replace()

    def close(self) -> None:
        """Write the remaining lines; closing twice is allowed."""
        self._write()
        if self._file is not None:
            self._file.close()

    def _kept(self, mark: Mapping[str, Any]) -> bytes:
        if self._path is None:
            return b""
        data = self._path.read_bytes()[: mark["bytes"]] if self._path.exists() else b""
        if hashlib.sha256(data).hexdigest() != mark["sha256"]:
            raise DataError(f"{self._path} is not as it was when training was saved")
        return data

    def _append(self) -> None:
        if self._file is None:
            self._replace()
            self._file = open(os.fspath(self._path or ""), "ab")  # noqa: SIM115
        with files.naming(self._path or ""):
            self._file.write(self._data[self._stored :])
            self._file.flush()
        self._stored = len(self._data)

    def _write(self) -> None:
        if self._path is not None and self._stored < len(self._data):
            self._replace()

    def _replace(self) -> None:
        assert self._path is not None, "without a path nothing is written"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(self._path, bytes(self._data))
        self._stored = len(self._data)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of a metrics file; values that were not finite are texts. [] without a file.

    Raises:
        DataError: a line is damaged.
    """
    path = epath.Path(path)
    rows = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number} is damaged ({error}); {files.rerun(path.parent)}"
            ) from error
    return rows


def _number(value: SupportsFloat) -> float | int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)
