"""Training metrics as JSON lines: `log(step, scalars)` appends one line."""

import json
import math
from collections.abc import Mapping
from typing import Any, SupportsFloat, TextIO

from etils import epath

from eef_jax.storage import files


class MetricsWriter:
    """Writes scalars to a JSONL file; use it as a context manager or close it.

    On a local disk each line is written at once, after the existing ones. An object store cannot
    append: there all lines are written on closing, after the existing ones. Without a path nothing
    is written (only the lead of a run writes metrics).

    Example:
        >>> with MetricsWriter(folder / "metrics.jsonl") as metrics:
        ...     metrics.log(10, {"loss": 0.5, "tokens_per_second": 8000})
    """

    def __init__(self, path: epath.PathLike | None):
        self._path = None if path is None else epath.Path(path)
        self._lines: list[str] = []
        self._file: TextIO | None = None
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if files.is_local(self._path):
                self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115

    def log(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        """Write one line: the step and the scalars (Python, NumPy or JAX numbers).

        Values that are not finite are written as text ("nan", "inf"), because JSON has no such
        numbers.
        """
        row = json.dumps({"step": int(step)} | {name: _number(x) for name, x in scalars.items()})
        if self._file:
            self._file.write(row + "\n")
            self._file.flush()
        else:
            self._lines.append(row + "\n")

    def close(self) -> None:
        """Write the remaining lines; closing twice is allowed."""
        if self._file:
            self._file.close()
        elif self._lines and self._path is not None:
            before = self._path.read_text() if self._path.exists() else ""
            files.write_text(self._path, before + "".join(self._lines))
            self._lines = []

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _number(value: SupportsFloat) -> float | int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)
