"""Counts from HLO with loops multiplied by their trip counts: FLOPs, HBM traffic, collectives.

XLA's own cost analysis counts a loop's body once and skips custom kernels. FLOPs are those of dots,
convolutions and custom kernels: the work of the matrix unit. HBM traffic is what fusions, copies
and kernels read and write in main memory, each operand once per operation; an operand that a fusion
only slices counts with the size of the slice. Rates and times are `roofline`'s.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eef_jax.analysis.hlo import Instruction, Module, Shape

Computation = Mapping[str, Instruction]
KernelFlops = Callable[[str, list[Shape]], float]  # name and operands of a custom kernel -> FLOPs

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
# Opcodes that move no data themselves: bookkeeping, and control flow whose bodies are counted.
_NO_TRAFFIC = frozenset(
    "parameter tuple get-tuple-element bitcast constant while conditional call after-all "
    "partition-id replica-id opt-barrier optimization-barrier iota".split()
)
_SLICES = ("dynamic-slice", "slice", "gather")
# Updates in place -> the number of the operand that is written; the rest of the array stays.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
_MESH = re.compile(r"mesh\[([^\]]*)\][^{]*\{([^}]*)\}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """All collectives of one kind and group size in a program.

    Attributes:
        kind: HLO opcode, such as `all-gather`.
        group: devices in one replica group.
        count: executions per run of the program.
        bytes: bytes that one device receives per run of the program, in total.
    """

    kind: str
    group: int
    count: int
    bytes: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProgramCounts:
    """Per-device totals for one run of a program.

    Attributes:
        flops: FLOPs of matrix products, including those of custom kernels.
        kernel_flops: FLOPs of custom kernels alone.
        memory: bytes read from and written to HBM.
        collectives: collectives by kind and group size, the most bytes first.
    """

    flops: float
    kernel_flops: float
    memory: float
    collectives: tuple[Collective, ...]


def count_program(module: Module, *, kernel: KernelFlops | None = None) -> ProgramCounts:
    """Count the FLOPs, HBM traffic and collectives of a program.

    Args:
        module: the parsed program.
        kernel: FLOPs of a custom kernel from its name and operands, which HLO does not contain;
            None counts 0 for each.
    """
    totals = _Totals(module, kernel or (lambda name, operands: 0.0))
    totals.count_computation(module.computations[module.entry], 1)
    collectives = [
        Collective(kind=kind, group=group, count=totals.executions[kind, group], bytes=size)
        for (kind, group), size in totals.collectives.items()
    ]
    return ProgramCounts(
        flops=totals.flops,
        kernel_flops=totals.kernel_flops,
        memory=totals.memory,
        collectives=tuple(sorted(collectives, key=lambda collective: -collective.bytes)),
    )


class _Totals:
    """Running totals over a program; an argument `times` is how often a computation runs."""

    def __init__(self, module: Module, kernel: KernelFlops):
        self._module, self._kernel = module, kernel
        self._channels: set[str] = set()
        self.flops = self.kernel_flops = self.memory = 0.0
        self.collectives: Counter[tuple[str, int]] = Counter()
        self.executions: Counter[tuple[str, int]] = Counter()

    def count_computation(self, computation: Computation, times: int) -> None:
        """Count a computation whose instructions read and write memory."""
        for one in computation.values():
            self._count_operation(computation, one, times)
            if one.opcode == "while":
                body = self._module.computations[one.called("body") or ""]
                self.count_computation(body, times * self._module.trip_count(one))
            elif one.opcode == "call":
                called = self._module.computations[one.called("to_apply") or ""]
                self.count_computation(called, times)
            elif one.opcode == "conditional":
                self._count_conditional(one, times)
            elif one.opcode not in _NO_TRAFFIC and not one.opcode.endswith("-done"):
                self.memory += times * self._traffic(computation, one)

    def _count_conditional(self, one: Instruction, times: int) -> None:
        """Count the most expensive branch: devices wait for the one that takes it."""
        names = re.search(r"branch_computations=\{([^}]*)\}", one.text)
        branches = re.findall(r"%?([\w.-]+)", names[1]) if names else []
        branches += [n for r in ("true_computation", "false_computation") if (n := one.called(r))]
        branch_totals = []
        for name in branches:
            totals = _Totals(self._module, self._kernel)
            totals.count_computation(self._module.computations[name], times)
            branch_totals.append(totals)
        costliest = max(branch_totals, key=lambda totals: (totals.flops, totals.memory))
        self.flops += costliest.flops
        self.kernel_flops += costliest.kernel_flops
        self.memory += costliest.memory
        self.collectives += costliest.collectives
        self.executions += costliest.executions

    def _count_operation(
        self, computation: Computation, one: Instruction, times: int, *, inside: bool = False
    ) -> None:
        """Count FLOPs and collectives of an instruction and what it calls (fusion, async start).

        Inside a fusion the collective's result is written to HBM by the fusion itself, whose own
        traffic leaves it out: it is counted here.
        """
        kind = one.opcode.removesuffix("-start")
        if one.opcode == "dot":
            self.flops += times * dot_flops(computation, one)
        elif one.opcode == "convolution":
            self.flops += times * convolution_flops(computation, one)
        elif one.opcode == "custom-call" and "tpu_custom_call" in one.text:
            operands = [computation[name].shapes[0] for name in one.operands]
            flops = self._kernel(one.name, operands)
            self.kernel_flops += times * flops
            self.flops += times * flops
        elif kind in COLLECTIVES:
            received = self._count_collective(computation, one, kind, times)
            self.memory += times * received if inside else 0.0
        elif one.opcode in ("fusion", "async-start"):
            fused = self._module.computations[one.called("calls") or ""]
            for part in fused.values():
                self._count_operation(fused, part, times, inside=True)

    def _count_collective(
        self, computation: Computation, one: Instruction, kind: str, times: int
    ) -> float:
        """Count a collective once, and return the bytes of its result in HBM."""
        # A collective that is split into steps to overlap with compute has one channel in all.
        channel = re.search(r"channel_id=(\d+)", one.text)
        if channel and channel[1] in self._channels:
            return 0.0
        if channel:
            self._channels.add(channel[1])
        group = _group_size(one.text)
        operands = sum(computation[name].shapes[0].bytes for name in one.operands)
        result = max(operands, _result_bytes(one, operands))
        # Ring algorithms: of n parts a device receives n - 1; an all-reduce does it twice.
        share = (group - 1) / group if group > 1 else (0.0 if kind != "collective-permute" else 1.0)
        received = {
            "all-gather": result * share,
            "all-reduce": 2 * operands * share,
            "reduce-scatter": operands * share,
            "all-to-all": operands * share,
            "ragged-all-to-all": operands * share,
        }.get(kind, operands)
        self.collectives[kind, group] += times * received  # type: ignore[assignment]
        self.executions[kind, group] += times
        return _hbm_bytes(one.shapes)

    def _traffic(self, computation: Computation, one: Instruction) -> float:
        """Bytes that an instruction reads from and writes to HBM."""
        if one.opcode == "custom-call" and "tpu_custom_call" not in one.text:
            return 0.0 if one.called("called_computations") is None else _hbm_bytes(one.shapes)
        if one.opcode == "fusion":
            fused = self._module.computations[one.called("calls") or ""]
            return self._bytes_read(computation, one, fused) + self._bytes_written(one, fused)
        if one.opcode in _SLICES:
            return 2 * _hbm_bytes(one.shapes)
        if (written := _UPDATES.get(one.opcode)) is not None:
            return 2 * _hbm_bytes(computation[one.operands[written]].shapes)
        # An operand given several times (the pages, to a kernel that takes many) is read once.
        read = sum(_hbm_bytes(computation[name].shapes) for name in dict.fromkeys(one.operands))
        if one.opcode.endswith("-start"):  # (result, source, context), or (sources, results, ...)
            return read + _hbm_bytes(one.shapes[:1] if "copy" in one.opcode else one.shapes[1:2])
        return read + _hbm_bytes(one.shapes)

    def _bytes_read(self, computation: Computation, one: Instruction, fused: Computation) -> float:
        """Bytes of its operands in HBM that a fusion reads."""
        parameters = [p for p in fused.values() if p.opcode == "parameter"]
        by_number = {_parameter_number(p): p for p in parameters}
        total = 0.0
        for number, name in enumerate(one.operands):
            size = _hbm_bytes(computation[name].shapes)
            # Overlapping slices are read from HBM once: never more than the whole operand.
            total += min(size, self._bytes_used(fused, by_number[number])) if size else 0.0
        return total

    def _bytes_used(self, fused: Computation, parameter: Instruction) -> float:
        """Bytes of a fusion's parameter that its instructions use."""
        total = 0.0
        for user in fused.values():
            if parameter.name not in user.operands:
                continue
            if user.opcode in _SLICES and user.operands[0] == parameter.name:
                total += sum(shape.bytes for shape in user.shapes)
            elif user.opcode == "bitcast":
                total += self._bytes_used(fused, user)
            elif user.opcode == "fusion":
                nested = self._module.computations[user.called("calls") or ""]
                for number, name in enumerate(user.operands):
                    if name == parameter.name:
                        found = (p for p in nested.values() if p.opcode == "parameter")
                        used = next(p for p in found if _parameter_number(p) == number)
                        total += self._bytes_used(nested, used)
            elif user.opcode in _UPDATES and user.operands[0] == parameter.name:
                continue  # written in place
            elif user.opcode != "tuple" and user.opcode.removesuffix("-start") not in COLLECTIVES:
                return sum(shape.bytes for shape in parameter.shapes)
        return total

    def _bytes_written(self, one: Instruction, fused: Computation) -> float:
        """Bytes that a fusion writes to HBM."""
        root = next(part for part in fused.values() if part.root)
        if root.opcode == "custom-call" and "tpu_custom_call" not in root.text:
            return 0.0  # start or end of a collective, which is counted where it stands
        parts = [fused[name] for name in root.operands] if root.opcode == "tuple" else [root]
        # Results of a nested tuple cannot be matched with its parts: all count in full.
        if len(parts) != len(one.shapes):
            return _hbm_bytes(one.shapes)
        total = 0.0
        for part, shape in zip(parts, one.shapes, strict=True):
            # On chip, passed through unchanged, or counted with its collective.
            if shape.space or part.opcode in ("parameter", *COLLECTIVES):
                continue
            updated = _updated_bytes(fused, part)
            total += shape.bytes if updated is None else min(updated, shape.bytes)
        return total


def dot_flops(computation: Computation, one: Instruction) -> float:
    """FLOPs of a dot: 2 x elements of the result x length of the contraction."""
    left = computation[one.operands[0]].shapes[0].dims
    contracted = math.prod(left[axis] for axis in one.numbers("lhs_contracting_dims"))
    return 2.0 * one.shapes[0].size * contracted


def convolution_flops(computation: Computation, one: Instruction) -> float:
    """FLOPs of a convolution, which is how XLA:TPU writes every dot.

    Batch dimensions of a dot become windows that mostly cover padding: positions outside the
    operand, or between its dilated elements, are not counted.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.text)
    assert labels is not None, f"a convolution without dim_labels: {one.name}"
    left, right = (computation[name].shapes[0].dims for name in one.operands[:2])
    out = one.shapes[0].dims
    flops = 2.0 * right[labels[2].index("i")]
    flops *= out[labels[3].index("b")] * out[labels[3].index("f")]
    spatial = sorted(label for label in labels[3] if label.isdigit())
    for axis in spatial:
        sizes = (
            left[labels[1].index(axis)],
            right[labels[2].index(axis)],
            out[labels[3].index(axis)],
        )
        flops *= _valid_positions(*sizes, _window(one.text, int(axis), len(spatial)))
    return flops


def _valid_positions(size: int, kernel: int, out: int, window: Mapping[str, int]) -> int:
    """Pairs of output and kernel positions that fall on an element, along one dimension."""
    at = np.arange(out)[:, None] * window["stride"]
    at = at + np.arange(kernel)[None, :] * window["rhs_dilate"] - window["pad"]
    inside = (at >= 0) & (at <= (size - 1) * window["lhs_dilate"])
    return int(np.sum(inside & (at % window["lhs_dilate"] == 0)))


def _window(text: str, axis: int, count: int) -> dict[str, int]:
    """Stride, padding and dilations of one of `count` spatial dimensions."""
    window = re.search(r"window=\{([^}]*)\}", text)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}

    def of(name: str, default: str) -> str:
        return fields[name].split("x")[axis] if name in fields else default

    assert count > axis, f"dimension {axis} of {count}"
    return {
        "stride": int(of("stride", "1")),
        "pad": int(of("pad", "0_0").split("_")[0]),
        "lhs_dilate": int(of("lhs_dilate", "1")),
        "rhs_dilate": int(of("rhs_dilate", "1")),
    }


def _group_size(text: str) -> int:
    """Devices in one replica group, in any of HLO's notations."""
    if mesh := _MESH.search(text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(sub or sizes[name]) for name, sub in parts)
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(iota[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return listed[1].count(",") + 1
    return 1


def _result_bytes(one: Instruction, operands: float) -> float:
    """Bytes of a collective's result; the tuple of an async start holds the operands too."""
    total = sum(shape.bytes for shape in one.shapes)
    return total - operands if one.opcode.endswith("-start") and total > operands else total


def _updated_bytes(fused: Computation, part: Instruction) -> float | None:
    """Bytes that an update in place writes; None where the whole array is written."""
    while part.opcode in ("bitcast", "copy") and part.operands:
        part = fused[part.operands[0]]
    if (written := _UPDATES.get(part.opcode)) is None:
        return None
    return sum(shape.bytes for shape in fused[part.operands[written]].shapes)


def _parameter_number(parameter: Instruction) -> int:
    return int(parameter.constant)


def _hbm_bytes(shapes: Any) -> float:
    """Bytes of arrays that are in HBM, not on chip or on the host."""
    return sum(shape.bytes for shape in shapes if shape.space == 0)
