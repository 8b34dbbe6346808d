"""How long a program takes at least, and at most if nothing overlaps.

Three times are set side by side: matrix unit, main memory, wires, each at its full rate. Were they
to overlap wholly the longest would be the step's time, without any overlap their sum. Real steps
lie between or above: no kernel's efficiency and no latency is modelled.
"""

import dataclasses

from eef_jax.analysis.chips import Slice
from eef_jax.analysis.count import Counts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Seconds of one run on one chip, and what share of the peak is useful.

    Attributes:
        compute: of products.
        memory: of reading and writing main memory.
        wires: of collectives.
        by_wire: the same by kind, as (kind, group, seconds), the longest first.
        mfu: useful FLOPs over peak FLOPs, if all overlapped (0-1).
        mfu_alone: if nothing did.
    """

    compute: float
    memory: float
    wires: float
    by_wire: tuple[tuple[str, int, float], ...]
    mfu: float
    mfu_alone: float

    @property
    def shortest(self) -> float:
        """Seconds with perfect overlap."""
        return max(self.compute, self.memory, self.wires)

    @property
    def longest(self) -> float:
        """Seconds without any."""
        return self.compute + self.memory + self.wires

    @property
    def bound(self) -> str:
        """What takes longest."""
        times = {"compute": self.compute, "memory": self.memory, "wires": self.wires}
        return max(times, key=times.__getitem__)


def roofline(counts: Counts, where: Slice, *, useful: float) -> Roofline:
    """Times of a program on a slice.

    Args:
        counts: what one chip does.
        where: the chips.
        useful: FLOPs of one chip's share that the task itself asks for (see `useful`).
    """
    chip = where.chip
    by_wire = [(w.kind, w.group, w.bytes / where.wire_rate(w.group)) for w in counts.wires]
    parts = (
        counts.flops / chip.flops,
        counts.memory / chip.bandwidth,
        sum(seconds for _, _, seconds in by_wire),
    )
    ideal = useful / chip.flops
    return Roofline(
        compute=parts[0],
        memory=parts[1],
        wires=parts[2],
        by_wire=tuple(sorted(by_wire, key=lambda one: -one[2])),
        mfu=ideal / max(parts),
        mfu_alone=ideal / sum(parts),
    )
