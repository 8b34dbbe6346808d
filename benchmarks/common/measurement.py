"""A measured value with the bound that it must keep, and Markdown tables of such values."""

import dataclasses
from collections.abc import Iterable

HEAD = "| what | measured | must be | kept |\n|---|---|---|---|"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One row of the table.

    Attributes:
        name: what was measured.
        value: the measured value.
        unit: unit of `value` and `bound`.
        bound: the bound to keep.
        at_most: whether `bound` is an upper bound; otherwise it is a lower one.
    """

    name: str
    value: float
    unit: str
    bound: float
    at_most: bool = True

    @property
    def within(self) -> bool:
        """Whether the value keeps the bound."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def row(self) -> str:
        """Return the measurement as a line of Markdown."""
        sign = "<=" if self.at_most else ">="
        verdict = "yes" if self.within else "NO"
        return (
            f"| {self.name} | {_number(self.value)} {self.unit} | "
            f"{sign} {_number(self.bound)} {self.unit} | {verdict} |"
        )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(measurements: Iterable[Measurement]) -> str:
    """Return all measurements as a Markdown table."""
    return "\n".join([HEAD, *(measurement.row() for measurement in measurements)])
