"""Small checkouts to measure."""

import pathlib
import textwrap
from collections.abc import Iterable

from benchmarks.common.measures import checkout


def make(root: pathlib.Path, files: dict[str, str] | None = None) -> checkout.Checkout:
    """A checkout with these files, by their paths."""
    for name, text in (files or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return checkout.read(root)


def by_name(measures: Iterable[checkout.Measure]) -> dict[str, checkout.Measure]:
    return {measure.name: measure for measure in measures}
