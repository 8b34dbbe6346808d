"""Roofline: a program's time with perfect overlap, and without any.

Three resources are compared, each at its peak rate: matrix unit, HBM and interconnect. With perfect
overlap a step takes the longest of the three times, without any their sum. Real steps are between
the two or slower: neither the efficiency of kernels nor latencies are modelled.
"""

import dataclasses

from eef_jax.analysis.chips import Slice
from eef_jax.analysis.count import ProgramCounts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Times of one run of a program on one chip, in seconds, and the MFU they imply.

    Attributes:
        compute: seconds of matrix products.
        memory: seconds of HBM traffic.
        communication: seconds of collectives.
        by_collective: communication as (kind, group size, seconds), the longest first.
        mfu_overlapped: model FLOPs utilization with perfect overlap (0-1).
        mfu_serial: model FLOPs utilization without any overlap (0-1).
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
        """Seconds without any overlap."""
        return self.compute + self.memory + self.communication

    @property
    def bottleneck(self) -> str:
        """The resource that takes longest: compute, memory or communication."""
        times = {
            "compute": self.compute,
            "memory": self.memory,
            "communication": self.communication,
        }
        return max(times, key=times.__getitem__)


def roofline(counts: ProgramCounts, topology: Slice, *, model_flops: float) -> Roofline:
    """Roofline of a program on a slice.

    Args:
        counts: totals per chip.
        topology: the slice.
        model_flops: FLOPs per chip that the task itself requires (`flops.model_flops`).
    """
    chip = topology.chip
    by_collective = [
        (each.kind, each.group, each.bytes / topology.collective_bandwidth(each.group))
        for each in counts.collectives
    ]
    times = (
        counts.flops / chip.peak_flops,
        counts.memory / chip.hbm_bandwidth,
        sum(seconds for _, _, seconds in by_collective),
    )
    ideal = model_flops / chip.peak_flops
    return Roofline(
        compute=times[0],
        memory=times[1],
        communication=times[2],
        by_collective=tuple(sorted(by_collective, key=lambda each: -each[2])),
        mfu_overlapped=ideal / max(times),
        mfu_serial=ideal / sum(times),
    )
