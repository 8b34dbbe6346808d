"""Chips that programs are compiled for: what each can do, and how a slice of them is wired.

Rates are Google Cloud's published ones (cloud.google.com/tpu/docs, "System architecture"); a link's
rate in one direction is that of "How to Scale Your Model" (jax-ml.github.io/scaling-book/tpus),
which is a little below the published one. Memory is what the compiler itself gives a program.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from eef_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One kind of chip.

    Attributes:
        name: as topologies are named.
        peak_flops: bfloat16 FLOPs a second.
        hbm_bytes: bytes of HBM that a program may use.
        hbm_bandwidth: bytes a second of HBM.
        ici_bandwidth: bytes a second of one link in one direction.
        ring_multiple: an axis of a slice is a ring where this divides its length, else a line.
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
    """Chips wired as a grid.

    Attributes:
        chip: their kind.
        axes: lengths of the grid's axes above 1, the longest first.
    """

    chip: Chip
    axes: tuple[int, ...]

    def collective_bandwidth(self, group: int) -> float:
        """Bytes a second that a device of a group of so many receives, all its links used.

        A group lies along as few axes as can hold it. On a ring data comes from both sides; on a
        line the last device has one neighbour.
        """
        rate, held = 0.0, 1
        for length in self.axes:
            rate += self.chip.ici_bandwidth * (2 if length % self.chip.ring_multiple == 0 else 1)
            held *= length
            if held >= group:
                break
        return rate or self.chip.ici_bandwidth


def chip_spec(devices: Sequence[Any]) -> Chip:
    """The chip that devices are.

    Raises:
        ConfigError: for one that is not in the table.
    """
    kind = devices[0].device_kind
    if kind not in CHIPS:
        raise ConfigError(
            f"no specification of the chip {kind!r}: known are {', '.join(CHIPS)}; add its row to "
            "eef_jax/analysis/chips.py"
        )
    return CHIPS[kind]


def slice_topology(devices: Sequence[Any]) -> Slice:
    """The grid that devices form, from their coordinates."""
    grid = [len({device.coords[axis] for device in devices}) for axis in range(3)]
    axes = tuple(sorted((length for length in grid if length > 1), reverse=True))
    assert math.prod(axes) == len(devices), f"{len(devices)} devices on a grid {grid}"
    return Slice(chip=chip_spec(devices), axes=axes)
