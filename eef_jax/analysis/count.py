"""What a program does, loops multiplied out: FLOPs, bytes of memory, bytes on the wire.

The compiler's own cost analysis counts a loop's body once and knows no custom kernel, so the counts
are made from the HLO. FLOPs are those of products (dots, convolutions, kernels): what the matrix
unit does. Memory is what fusions, copies and kernels read and write of the device's main memory,
each array once an operation; arrays that a fusion slices count with the slice. Knows no chip.
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
Kernel = Callable[[str, list[Shape]], float]  # name and operands of a custom kernel -> its FLOPs

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
_FREE = frozenset(
    "parameter tuple get-tuple-element bitcast constant while conditional call after-all "
    "partition-id replica-id opt-barrier optimization-barrier iota".split()
)
_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # in place; which operand is written
_MESH = re.compile(r"mesh\[([^\]]*)\][^{]*\{([^}]*)\}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One kind of collective among groups of one size.

    Attributes:
        kind: such as `all-gather`.
        group: devices that take part together.
        count: how often a step does it.
        bytes: what a device receives in a step, in all.
    """

    kind: str
    group: int
    count: int
    bytes: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProgramCounts:
    """What one device does in one run of a program.

    Attributes:
        flops: of products, custom kernels' included.
        kernel_flops: of custom kernels.
        memory: bytes read from and written to main memory.
        collectives: collectives, the largest first.
    """

    flops: float
    kernel_flops: float
    memory: float
    collectives: tuple[Collective, ...]


def count_program(module: Module, *, kernel: Kernel | None = None) -> ProgramCounts:
    """Count a program.

    Args:
        module: the program.
        kernel: FLOPs of custom kernels, which HLO does not tell; None counts none.
    """
    walk = _Walk(module, kernel or (lambda name, operands: 0.0))
    walk.run(module.computations[module.entry], 1)
    collectives = [
        Collective(kind=kind, group=group, count=walk.times[kind, group], bytes=size)
        for (kind, group), size in walk.collectives.items()
    ]
    return ProgramCounts(
        flops=walk.flops,
        kernel_flops=walk.kernel_flops,
        memory=walk.memory,
        collectives=tuple(sorted(collectives, key=lambda one: -one.bytes)),
    )


class _Walk:
    """Sums over a program; `times` is how often the code at hand runs."""

    def __init__(self, module: Module, kernel: Kernel):
        self._module, self._kernel = module, kernel
        self._channels: set[str] = set()
        self.flops = self.kernel_flops = self.memory = 0.0
        self.collectives: Counter[tuple[str, int]] = Counter()
        self.times: Counter[tuple[str, int]] = Counter()

    def run(self, computation: Computation, times: int) -> None:
        """Count a computation whose instructions read and write memory."""
        for one in computation.values():
            self._work(computation, one, times)
            if one.opcode == "while":
                body = self._module.computations[one.called("body") or ""]
                self.run(body, times * self._module.trips(one))
            elif one.opcode == "call":
                self.run(self._module.computations[one.called("to_apply") or ""], times)
            elif one.opcode == "conditional":
                self._branches(one, times)
            elif one.opcode not in _FREE and not one.opcode.endswith("-done"):
                self.memory += times * self._traffic(computation, one)

    def _branches(self, one: Instruction, times: int) -> None:
        """The dearest branch: devices wait for the one that takes it."""
        names = re.search(r"branch_computations=\{([^}]*)\}", one.text)
        found = re.findall(r"%?([\w.-]+)", names[1]) if names else []
        found += [n for r in ("true_computation", "false_computation") if (n := one.called(r))]
        walks = []
        for name in found:
            walk = _Walk(self._module, self._kernel)
            walk.run(self._module.computations[name], times)
            walks.append(walk)
        dearest = max(walks, key=lambda walk: (walk.flops, walk.memory))
        self.flops += dearest.flops
        self.kernel_flops += dearest.kernel_flops
        self.memory += dearest.memory
        self.collectives += dearest.collectives
        self.times += dearest.times

    def _work(
        self, computation: Computation, one: Instruction, times: int, *, inside: bool = False
    ) -> None:
        """FLOPs and wires of an instruction and of what it calls (fusions, asynchronous parts)."""
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
            arrived = self._collective(computation, one, kind, times)
            self.memory += times * arrived if inside else 0.0
        elif one.opcode in ("fusion", "async-start"):
            inner = self._module.computations[one.called("calls") or ""]
            for part in inner.values():
                self._work(inner, part, times, inside=True)

    def _collective(
        self, computation: Computation, one: Instruction, kind: str, times: int
    ) -> float:
        """Count a collective once; the bytes of main memory that what arrives is written to."""
        # What the compiler splits into steps between other work keeps its channel in all of them.
        channel = re.search(r"channel_id=(\d+)", one.text)
        if channel and channel[1] in self._channels:
            return 0.0
        if channel:
            self._channels.add(channel[1])
        group = _group(one.text)
        sent = sum(computation[name].shapes[0].bytes for name in one.operands)
        got = max(sent, _result_bytes(one, sent))
        share = (group - 1) / group if group > 1 else (0.0 if kind != "collective-permute" else 1.0)
        wire = {
            "all-gather": got * share,
            "all-reduce": 2 * sent * share,
            "reduce-scatter": sent * share,
            "all-to-all": sent * share,
            "ragged-all-to-all": sent * share,
        }.get(kind, sent)
        self.collectives[kind, group] += times * wire  # type: ignore[assignment]
        self.times[kind, group] += times
        return _far(one.shapes)

    def _traffic(self, computation: Computation, one: Instruction) -> float:
        """Bytes of main memory that an instruction reads and writes."""
        if one.opcode == "custom-call" and "tpu_custom_call" not in one.text:
            return 0.0 if one.called("called_computations") is None else _far(one.shapes)
        if one.opcode == "fusion":
            inner = self._module.computations[one.called("calls") or ""]
            return self._read(computation, one, inner) + self._written(one, inner)
        if one.opcode in _SLICES:
            return 2 * _far(one.shapes)
        if (written := _UPDATES.get(one.opcode)) is not None:
            return 2 * _far(computation[one.operands[written]].shapes)
        # What is given twice, as pages are to a kernel that takes several at once, is read once.
        read = sum(_far(computation[name].shapes) for name in dict.fromkeys(one.operands))
        if one.opcode.endswith("-start"):  # (result, source, context), or (sources, results, ...)
            return read + _far(one.shapes[:1] if "copy" in one.opcode else one.shapes[1:2])
        return read + _far(one.shapes)

    def _read(self, computation: Computation, one: Instruction, inner: Computation) -> float:
        parameters = [p for p in inner.values() if p.opcode == "parameter"]
        by_number = {_number(p): p for p in parameters}
        total = 0.0
        for number, name in enumerate(one.operands):
            whole = _far(computation[name].shapes)
            total += min(whole, self._used(inner, by_number[number])) if whole else 0.0
        return total

    def _used(self, inner: Computation, parameter: Instruction) -> float:
        """Bytes of a fusion's parameter that are looked at."""
        total = 0.0
        for user in inner.values():
            if parameter.name not in user.operands:
                continue
            if user.opcode in _SLICES and user.operands[0] == parameter.name:
                total += sum(shape.bytes for shape in user.shapes)
            elif user.opcode == "bitcast":
                total += self._used(inner, user)
            elif user.opcode == "fusion":
                nested = self._module.computations[user.called("calls") or ""]
                for number, name in enumerate(user.operands):
                    if name == parameter.name:
                        found = (p for p in nested.values() if p.opcode == "parameter")
                        total += self._used(nested, next(p for p in found if _number(p) == number))
            elif user.opcode in _UPDATES and user.operands[0] == parameter.name:
                continue  # written in place
            elif user.opcode != "tuple" and user.opcode.removesuffix("-start") not in COLLECTIVES:
                return sum(shape.bytes for shape in parameter.shapes)
        return total

    def _written(self, one: Instruction, inner: Computation) -> float:
        root = next(part for part in inner.values() if part.root)
        if root.opcode == "custom-call" and "tpu_custom_call" not in root.text:
            return 0.0  # the start or the end of a collective, which counts itself
        parts = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
        if len(parts) != len(one.shapes):
            return _far(one.shapes)
        total = 0.0
        for part, shape in zip(parts, one.shapes, strict=True):
            if shape.space or part.opcode in ("parameter", *COLLECTIVES):
                continue
            changed = _updated(inner, part)
            total += shape.bytes if changed is None else min(changed, shape.bytes)
        return total


def dot_flops(computation: Computation, one: Instruction) -> float:
    """2 x results x length of the contraction."""
    left = computation[one.operands[0]].shapes[0].dims
    contracted = math.prod(left[axis] for axis in one.numbers("lhs_contracting_dims"))
    return 2.0 * one.shapes[0].size * contracted


def convolution_flops(computation: Computation, one: Instruction) -> float:
    """Products of a convolution, as which a TPU's compiler writes every dot.

    Batch dimensions of a dot become windows that mostly look at padding: places outside the
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
        flops *= _places(*sizes, _window(one.text, int(axis), len(spatial)))
    return flops


def _places(size: int, kernel: int, out: int, window: Mapping[str, int]) -> int:
    """Pairs of output and kernel positions that meet an element along one dimension."""
    at = np.arange(out)[:, None] * window["stride"]
    at = at + np.arange(kernel)[None, :] * window["rhs_dilate"] - window["pad"]
    inside = (at >= 0) & (at <= (size - 1) * window["lhs_dilate"])
    return int(np.sum(inside & (at % window["lhs_dilate"] == 0)))


def _window(text: str, axis: int, count: int) -> dict[str, int]:
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


def _group(text: str) -> int:
    """Devices of one group, in any of HLO's ways to write groups."""
    if mesh := _MESH.search(text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(sub or sizes[name]) for name, sub in parts)
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(iota[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return listed[1].count(",") + 1
    return 1


def _result_bytes(one: Instruction, sent: float) -> float:
    """Bytes of a collective's result; a start's tuple holds its operands too."""
    total = sum(shape.bytes for shape in one.shapes)
    return total - sent if one.opcode.endswith("-start") and total > sent else total


def _updated(inner: Computation, part: Instruction) -> float | None:
    """Bytes of an update in place; None for what is written whole."""
    while part.opcode in ("bitcast", "copy") and part.operands:
        part = inner[part.operands[0]]
    if (written := _UPDATES.get(part.opcode)) is None:
        return None
    return sum(shape.bytes for shape in inner[part.operands[written]].shapes)


def _number(parameter: Instruction) -> int:
    return int(parameter.constant)


def _far(shapes: Any) -> float:
    """Bytes in main memory."""
    return sum(shape.bytes for shape in shapes if shape.space == 0)
