"""One measured figure beside the bound it must keep, and tables of them. Knows what none means."""

import dataclasses
from collections.abc import Iterable

HEAD = "| what | measured | must be | kept |\n|---|---|---|---|"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One row of the table; `within` tells whether a value keeps the bound."""

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
        """The figure as a line of Markdown."""
        sign = "<=" if self.at_most else ">="
        verdict = "yes" if self.within else "NO"
        return (
            f"| {self.name} | {_number(self.value)} {self.unit} | "
            f"{sign} {_number(self.bound)} {self.unit} | {verdict} |"
        )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(figures: Iterable[Measurement]) -> str:
    """All figures as Markdown."""
    return "\n".join([HEAD, *(figure.row() for figure in figures)])
