"""Counts of what an engine did."""

import dataclasses


@dataclasses.dataclass(slots=True, kw_only=True)
class Counters:
    """Counts since the engine was made.

    Attributes:
        prefilled: tokens computed by prefills.
        reused: tokens of admitted requests that the cache already held.
        copied: pages copied, because another request reads them or shares only a part of them.
        generated: tokens sampled.
        replayed: sampled tokens that were computed once more after a preemption.
        preempted: times that a request had to give up its pages.
        dispatches: programs run, by name.
        utilization: used share (0-1) of each dispatch, summed over dispatches, by name.
    """

    prefilled: int = 0
    reused: int = 0
    copied: int = 0
    generated: int = 0
    replayed: int = 0
    preempted: int = 0
    dispatches: dict[str, int] = dataclasses.field(default_factory=dict)
    utilization: dict[str, float] = dataclasses.field(default_factory=dict)

    def totals(self) -> dict[str, int]:
        """Return the counts of tokens, pages and preemptions by name."""
        names = ("prefilled", "reused", "copied", "generated", "replayed", "preempted")
        return {name: getattr(self, name) for name in names}

    def count_dispatch(self, name: str, utilization: float) -> None:
        """Count one dispatch of the program `name` with a used share from 0 to 1."""
        self.dispatches[name] = self.dispatches.get(name, 0) + 1
        self.utilization[name] = self.utilization.get(name, 0.0) + utilization
