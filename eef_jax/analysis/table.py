"""A plan as text: memory, work, traffic, times. Knows numbers and words only."""

from collections.abc import Sequence

from jax.sharding import Mesh

from eef_jax.analysis.plan import Plan
from eef_jax.analysis.programs import Program

_GIB = 2**30


def lines(plan: Plan) -> list[str]:
    """What the command line prints."""
    hbm = plan.chip.memory / _GIB
    head = [
        f"{plan.topology}: {plan.mesh.size} chips of {hbm:.2f} GiB; {plan.parameters:,} parameters",
        f"training: mesh {_axes(plan.mesh)}; {plan.rows} rows of {plan.length} tokens, in "
        f"{plan.accumulate} micro-batches",
        f"engine: {plan.local.size} chips of one process, mesh {_axes(plan.local)}",
        "",
    ]
    rows = [_row(one, plan) for one in plan.programs]
    body = _aligned([list(rows[0])] + [list(row.values()) for row in rows])
    tail = [wires(one) for one in plan.programs]
    last = (
        f"a run that trains and samples in turns holds at most {plan.resident / _GIB:.2f} of "
        f"{hbm:.2f} GiB a chip, {plan.cache / _GIB:.2f} of them pages while it samples"
    )
    return [*head, *body, "", *tail, "", last]


def wires(one: Program) -> str:
    """What a program sends, by kind."""
    parts = [
        f"{kind} over {group}: {seconds * 1e3:.1f} ms"
        for kind, group, seconds in one.roofline.by_wire
        if seconds >= 1e-5
    ]
    return f"{one.name}: bound by {one.roofline.bound}; " + (", ".join(parts) or "sends nothing")


def _axes(mesh: Mesh) -> str:
    axes = (f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    return ", ".join(axes) or "of one device"


def _row(one: Program, plan: Plan) -> dict[str, str]:
    roof, memory = one.roofline, one.memory
    sent = sum(wire.bytes for wire in one.counts.wires)
    return {
        "program": one.name,
        "arguments GiB": f"{memory.arguments / _GIB:.2f}",
        "temporaries GiB": f"{memory.temporaries / _GIB:.2f}",
        "of HBM": f"{100 * memory.total / plan.chip.memory:.0f} %",
        "TFLOPs": f"{one.counts.flops / 1e12:.3g}",
        "HBM GB": f"{one.counts.memory / 1e9:.3g}",
        "wires GB": f"{sent / 1e9:.3g}",
        "compute ms": f"{roof.compute * 1e3:.3g}",
        "HBM ms": f"{roof.memory * 1e3:.3g}",
        "wires ms": f"{roof.wires * 1e3:.3g}",
        "step ms": f"{roof.shortest * 1e3:.3g} - {roof.longest * 1e3:.3g}",
        "MFU %": f"{100 * roof.mfu_alone:.0f} - {100 * roof.mfu:.0f}",
        "compiled s": f"{one.seconds:.0f}",
    }


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
