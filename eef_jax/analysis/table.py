"""A plan as text for a terminal: memory, FLOPs, traffic and times of each program."""

from jax.sharding import Mesh

from eef_jax.analysis.plan import Plan
from eef_jax.analysis.programs import Program
from eef_jax.report import markdown

_GIB = 2**30


def format_plan(plan: Plan) -> list[str]:
    """Lines that the command line prints."""
    hbm = plan.chip.hbm_bytes / _GIB
    head = [
        f"{plan.topology}: {plan.mesh.size} chips of {hbm:.2f} GiB; {plan.parameters:,} parameters",
        f"training: mesh {_axes(plan.mesh)}; {plan.batch_size} rows of {plan.seq_len} tokens, in "
        f"{plan.accumulation_steps} micro-batches",
        f"engine: {plan.rollout_mesh.size} chips of one process, mesh {_axes(plan.rollout_mesh)}",
        "",
    ]
    rows = [_row(one, plan) for one in plan.programs]
    body = markdown.columns(list(rows[0]), [list(row.values()) for row in rows])
    tail = [format_collectives(one) for one in plan.programs]
    last = (
        f"a run that alternates training and sampling peaks at {plan.peak_bytes / _GIB:.2f} of "
        f"{hbm:.2f} GiB a chip; its KV cache takes {plan.cache_bytes / _GIB:.2f} of them"
    )
    return [*head, *body, "", *tail, "", last]


def format_collectives(one: Program) -> str:
    """A program's bottleneck, and the time of its collectives by kind."""
    parts = [
        f"{kind} over {group}: {seconds * 1e3:.1f} ms"
        for kind, group, seconds in one.roofline.by_collective
        if seconds >= 1e-5
    ]
    return f"{one.name}: bound by {one.roofline.bottleneck}; " + (
        ", ".join(parts) or "no collectives"
    )


def _axes(mesh: Mesh) -> str:
    axes = (f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    return ", ".join(axes) or "of one device"


def _row(one: Program, plan: Plan) -> dict[str, str]:
    roof, memory = one.roofline, one.memory
    received = sum(collective.bytes for collective in one.counts.collectives)
    return {
        "program": one.name,
        "arguments GiB": f"{memory.arguments / _GIB:.2f}",
        "temporaries GiB": f"{memory.temporaries / _GIB:.2f}",
        "of HBM": f"{100 * memory.total / plan.chip.hbm_bytes:.0f} %",
        "TFLOPs": f"{one.counts.flops / 1e12:.3g}",
        "HBM GB": f"{one.counts.memory / 1e9:.3g}",
        "ICI GB": f"{received / 1e9:.3g}",
        "compute ms": f"{roof.compute * 1e3:.3g}",
        "HBM ms": f"{roof.memory * 1e3:.3g}",
        "ICI ms": f"{roof.communication * 1e3:.3g}",
        "step ms": f"{roof.time_overlapped * 1e3:.3g} - {roof.time_serial * 1e3:.3g}",
        "MFU %": f"{100 * roof.mfu_serial:.0f} - {100 * roof.mfu_overlapped:.0f}",
        "compile s": f"{one.seconds:.0f}",
    }
