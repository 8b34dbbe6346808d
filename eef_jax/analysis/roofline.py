"""How long a program takes at least, and at most if nothing overlaps.

Three times are set side by side: matrix unit, main memory, wires, each at its full rate. Were they
to overlap wholly the longest would be the step's time, without any overlap their sum. Real steps
lie between or above: no kernel's efficiency and no latency is modelled.
"""

import dataclasses

from eef_jax.analysis.chips import Slice
from eef_jax.analysis.count import ProgramCounts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Seconds of one run on one chip, and what share of the peak is useful.

    Attributes:
        compute: of products.
        memory: of reading and writing main memory.
        communication: of collectives.
        by_collective: the same by kind, as (kind, group, seconds), the longest first.
        mfu_overlapped: useful FLOPs over peak FLOPs, if all overlapped (0-1).
        mfu_serial: if nothing did.
    """

    compute: float
    memory: float
    communication: float
    by_collective: tuple[tuple[str, int, float], ...]
    mfu_overlapped: float
    mfu_serial: float

    @property
    def time_overlapped(self) -> float:
        """Seconds with perfect overlap."""
        return max(self.compute, self.memory, self.communication)

    @property
    def time_serial(self) -> float:
        """Seconds without any."""
        return self.compute + self.memory + self.communication

    @property
    def bottleneck(self) -> str:
        """What takes longest."""
        times = {
            "compute": self.compute,
            "memory": self.memory,
            "communication": self.communication,
        }
        return max(times, key=times.__getitem__)


def roofline(counts: ProgramCounts, where: Slice, *, model_flops: float) -> Roofline:
    """Times of a program on a slice.

    Args:
        counts: what one chip does.
        where: the chips.
        model_flops: FLOPs of one chip's share that the task itself asks for (`flops.model_flops`).
    """
    chip = where.chip
    by_collective = [
        (w.kind, w.group, w.bytes / where.collective_bandwidth(w.group)) for w in counts.collectives
    ]
    parts = (
        counts.flops / chip.peak_flops,
        counts.memory / chip.hbm_bandwidth,
        sum(seconds for _, _, seconds in by_collective),
    )
    ideal = model_flops / chip.peak_flops
    return Roofline(
        compute=parts[0],
        memory=parts[1],
        communication=parts[2],
        by_collective=tuple(sorted(by_collective, key=lambda one: -one[2])),
        mfu_overlapped=ideal / max(parts),
        mfu_serial=ideal / sum(parts),
    )
