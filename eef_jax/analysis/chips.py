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
        flops: bfloat16 FLOPs a second.
        memory: bytes of HBM that a program may use.
        bandwidth: bytes a second of HBM.
        link: bytes a second of one link in one direction.
        wrap: an axis of a slice is a ring where this divides its length, else a line.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    wrap: int


_GIB = 2.0**30
CHIPS = {
    "TPU v4": Chip(
        name="v4", flops=275e12, memory=30.75 * _GIB, bandwidth=1228e9, link=45e9, wrap=4
    ),
    "TPU v5 lite": Chip(
        name="v5e", flops=197e12, memory=15.75 * _GIB, bandwidth=819e9, link=45e9, wrap=16
    ),
    "TPU v5": Chip(
        name="v5p", flops=459e12, memory=95.74 * _GIB, bandwidth=2765e9, link=90e9, wrap=4
    ),
    "TPU v6 lite": Chip(
        name="v6e", flops=918e12, memory=31.25 * _GIB, bandwidth=1640e9, link=90e9, wrap=16
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

    def wire_rate(self, group: int) -> float:
        """Bytes a second that a device of a group of so many receives, all its links used.

        A group lies along as few axes as can hold it. On a ring data comes from both sides; on a
        line the last device has one neighbour.
        """
        rate, held = 0.0, 1
        for length in self.axes:
            rate += self.chip.link * (2 if length % self.chip.wrap == 0 else 1)
            held *= length
            if held >= group:
                break
        return rate or self.chip.link


def chip_of(devices: Sequence[Any]) -> Chip:
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


def slice_of(devices: Sequence[Any]) -> Slice:
    """The grid that devices form, from their coordinates."""
    grid = [len({device.coords[axis] for device in devices}) for axis in range(3)]
    axes = tuple(sorted((length for length in grid if length > 1), reverse=True))
    assert math.prod(axes) == len(devices), f"{len(devices)} devices on a grid {grid}"
    return Slice(chip=chip_of(devices), axes=axes)
