"""A measured value with its required bound, and Markdown tables of such values."""

import dataclasses
from collections.abc import Iterable

from benchmarks.common import tables

HEADER = ("what", "measured", "must be", "kept")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One row of the table.

    Attributes:
        name: what was measured.
        value: the measured value.
        unit: unit of `value` and `bound`.
        bound: the required bound.
        at_most: whether `bound` is an upper bound; otherwise it is a lower one.
    """

    name: str
    value: float
    unit: str
    bound: float
    at_most: bool = True

    @property
    def within(self) -> bool:
        """Whether the value is within the bound."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def row(self) -> str:
        """Return the measurement as a line of Markdown."""
        sign = "<=" if self.at_most else ">="
        verdict = "yes" if self.within else "NO"
        value, bound = (f"{_number(x)} {self.unit}" for x in (self.value, self.bound))
        return tables.row([self.name, value, f"{sign} {bound}", verdict])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(measurements: Iterable[Measurement]) -> str:
    """Return all measurements as a Markdown table."""
    rows = (measurement.row() for measurement in measurements)
    return "\n".join([*tables.head(HEADER, texts=len(HEADER)), *rows])
