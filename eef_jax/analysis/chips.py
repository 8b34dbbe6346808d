"""TPU chips that programs are compiled for: peak rates, memory, and the topology of a slice.

Rates are Google Cloud's published ones (cloud.google.com/tpu/docs, "System architecture"); a link's
rate in one direction is that of "How to Scale Your Model" (jax-ml.github.io/scaling-book/tpus),
which is a little below the published one. Memory is what the compiler leaves to a program.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from eef_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """Specification of one TPU generation.

    Attributes:
        name: prefix of its topologies' names, such as `v5e` in `v5e:4x4`.
        peak_flops: peak bfloat16 FLOP/s.
        hbm_bytes: bytes of HBM that a program may use.
        hbm_bandwidth: HBM bandwidth in bytes/s.
        ici_bandwidth: bandwidth of one inter-chip link in one direction, in bytes/s.
        ring_multiple: an axis of a slice has wraparound links where its length is a multiple of
            this; otherwise it is a line.
    """

    name: str
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    ring_multiple: int


_GIB = 2.0**30
CHIPS = {
    "TPU v4": Chip(
        name="v4",
        peak_flops=275e12,
        hbm_bytes=30.75 * _GIB,
        hbm_bandwidth=1228e9,
        ici_bandwidth=45e9,
        ring_multiple=4,
    ),
    "TPU v5 lite": Chip(
        name="v5e",
        peak_flops=197e12,
        hbm_bytes=15.75 * _GIB,
        hbm_bandwidth=819e9,
        ici_bandwidth=45e9,
        ring_multiple=16,
    ),
    "TPU v5": Chip(
        name="v5p",
        peak_flops=459e12,
        hbm_bytes=95.74 * _GIB,
        hbm_bandwidth=2765e9,
        ici_bandwidth=90e9,
        ring_multiple=4,
    ),
    "TPU v6 lite": Chip(
        name="v6e",
        peak_flops=918e12,
        hbm_bytes=31.25 * _GIB,
        hbm_bandwidth=1640e9,
        ici_bandwidth=90e9,
        ring_multiple=16,
    ),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A slice: chips connected as a mesh or torus.

    Attributes:
        chip: specification of its chips.
        axes: lengths of the axes longer than 1, in descending order.
    """

    chip: Chip
    axes: tuple[int, ...]

    def collective_bandwidth(self, group: int) -> float:
        """Bytes/s that one device receives in a collective over `group` devices, all links busy.

        The group is taken to span as few axes as can hold it, the longest first.
        """
        bandwidth, size = 0.0, 1
        for length in self.axes:
            # A ring receives from both neighbours; the last device of a line has only one.
            links = 2 if length % self.chip.ring_multiple == 0 else 1
            bandwidth += links * self.chip.ici_bandwidth
            size *= length
            if size >= group:
                break
        return bandwidth or self.chip.ici_bandwidth


def chip_spec(devices: Sequence[Any]) -> Chip:
    """The specification of the chips that devices are.

    Raises:
        ConfigError: the table `CHIPS` lacks their kind.
    """
    kind = devices[0].device_kind
    if kind not in CHIPS:
        raise ConfigError(
            f"no specification of the chip {kind!r}: expected one of {', '.join(CHIPS)}; add its "
            "row to eef_jax/analysis/chips.py"
        )
    return CHIPS[kind]


def slice_topology(devices: Sequence[Any]) -> Slice:
    """The slice that devices form, from their coordinates."""
    grid = [len({device.coords[axis] for device in devices}) for axis in range(3)]
    axes = tuple(sorted((length for length in grid if length > 1), reverse=True))
    assert math.prod(axes) == len(devices), f"{len(devices)} devices on a grid {grid}"
    return Slice(chip=chip_spec(devices), axes=axes)
