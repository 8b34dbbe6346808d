"""HLO text as data: computations of instructions with their shapes, operands and attributes.

Reads what `jax.stages.Compiled.as_text` prints for CPUs and TPUs, and the trip counts of loops.
What an instruction costs is `count`'s.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

_BITS = {
    "pred": 8, "token": 0, "opaque": 0,
    **{f"{kind}{bits}": bits for kind in "su" for bits in (2, 4, 8, 16, 32, 64)},
    "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = ")
_OPCODE = re.compile(r"\s*([\w-]+)\(")
_NAME = re.compile(r"%([\w.-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """One array: `bf16[4,128]{1,0:T(8,128)S(1)}`.

    Attributes:
        dtype: HLO's name of the element type.
        dims: sizes of its dimensions.
        space: 0 for HBM; otherwise the number of an on-chip or host memory.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        """Bytes, without the padding of its tiling."""
        bits = _BITS.get(self.dtype, 8)  # types missing there are the many 8-bit floats
        return self.size * bits / 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in the module.
        opcode: such as `dot`.
        shapes: shape of its result, or those of a tuple's elements (nested ones flattened).
        operands: names of its operands.
        text: the attributes, which follow the operands.
        constant: the literal of a constant, a parameter's number, else "".
        root: whether it is its computation's result.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    text: str
    constant: str
    root: bool

    def called(self, role: str) -> str | None:
        """The computation that an attribute names: `calls`, `body`, `condition` or `to_apply`."""
        found = re.search(rf"\b{role}=%?([\w.-]+)", self.text)
        return found[1] if found else None

    def numbers(self, attribute: str) -> tuple[int, ...]:
        """An attribute's list of numbers, such as `lhs_contracting_dims={1}`."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.text)
        return tuple(int(n) for n in found[1].split(",") if n) if found else ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A program.

    Attributes:
        computations: name -> its instructions by name, in order.
        entry: name of the entry computation.
    """

    computations: Mapping[str, Mapping[str, Instruction]]
    entry: str

    def instructions(self) -> Iterator[Instruction]:
        """The instructions of all computations, each once."""
        for computation in self.computations.values():
            yield from computation.values()

    def trip_count(self, loop: Instruction) -> int:
        """Iterations of a `while`: the compiler's own figure, or the bound in its condition.

        Raises:
            ValueError: the condition does not compare a counter with a constant.
        """
        if known := _TRIPS.search(loop.text):
            return int(known[1])
        condition = self.computations[loop.called("condition") or ""]
        root = next(one for one in condition.values() if one.root)
        fused = self.computations.get(root.called("calls") or "", {})
        compare = next((one for one in fused.values() if one.root), root)
        sides = [condition[name] for name in root.operands]
        limits = [one.constant for one in sides if one.opcode == "constant"]
        counts = compare.opcode == "compare" and any(
            one.opcode == "get-tuple-element" for one in sides
        )
        if not counts or len(limits) != 1 or not limits[0].lstrip("-").isdigit():
            raise ValueError(f"the loop {loop.name} runs until {root.name}: no constant bound")
        # Counters start at 0, so `i <= n` runs once more than `i < n`.
        return int(limits[0]) + ("direction=LE" in compare.text)


def parse(text: str) -> Module:
    """Read a module's text."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations.setdefault(head[1], {})
            entry = head[1] if line.startswith("ENTRY") else entry
        elif line.rstrip() == "}":
            current = None
        elif current is not None and (start := _LINE.match(line)):
            one = _instruction(line, start)
            current[one.name] = one
    return Module(computations=computations, entry=entry)


def shapes(text: str) -> tuple[Shape, ...]:
    """The shapes in the text of a type."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(n) for n in dims.split(",") if n)
        found.append(Shape(dtype, sizes, int(space[1]) if space else 0))
    return tuple(found)


def _instruction(line: str, start: re.Match[str]) -> Instruction:
    rest = line[start.end() :]
    # A tuple's type has spaces of its elements; any other type ends at the first space.
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:]
    opcode = _OPCODE.match(rest)
    assert opcode is not None, f"expected an instruction, got {line[:200]}"
    close = _closing(rest, opcode.end() - 1)
    inside = rest[opcode.end() : close]
    literal = opcode[1] in ("constant", "parameter")
    return Instruction(
        name=start[1],
        opcode=opcode[1],
        shapes=shapes(kind),
        operands=() if literal else tuple(_NAME.findall(inside)),
        text=rest[close + 1 :],
        constant=inside if literal else "",
        root=line.lstrip().startswith("ROOT"),
    )


def _closing(text: str, start: int) -> int:
    """Index of the bracket that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if depth == 0:
                return at
    raise ValueError(f"unbalanced brackets: {text[:80]}")
