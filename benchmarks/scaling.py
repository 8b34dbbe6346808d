"""What training takes on TPU slices, compiled ahead of time: the table of docs/scaling.md.

`python -m benchmarks.scaling` compiles every row that benchmarks/results/scaling does not hold yet
(minutes each, on a CPU with the extra `tpu-aot`); `--table` prints what it holds. `--only=NAME`
compiles one row anew. Knows presets and slices; every figure is `eef_jax.analysis`'s.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from absl import app, flags

RESULTS = Path(__file__).parent / "results" / "scaling"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One compile.

    Attributes:
        preset: of configs/webshop.py.
        topology: the slice.
        rows: of the global batch.
        programs: what is compiled.
    """

    preset: str
    topology: str
    rows: int
    programs: tuple[str, ...] = ("train",)

    @property
    def name(self) -> str:
        """Of its file."""
        grid = self.topology.replace(":", "-")
        return "_".join((self.preset, grid, *(p for p in self.programs if p != "train")))


ROWS = (
    Row(preset="llama3_8b", topology="v5e:4x4", rows=16),
    Row(preset="llama3_8b", topology="v5e:16x16", rows=256),
    Row(preset="llama3_8b", topology="v6e:4x4", rows=16),
    Row(preset="qwen2_5_1_5b", topology="v5e:2x2", rows=4),
    Row(preset="llama3_70b", topology="v6e:16x16", rows=256),
)


def measure(row: Row) -> dict[str, Any]:
    """Compile a row and keep what the table needs, as JSON values."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from configs import webshop
    from eef_jax.analysis import plan, table

    config = webshop.get_config(row.preset)
    config.train.rows = row.rows
    made = plan.plan(config.to_dict(), row.topology, wanted=row.programs)
    print("\n".join(table.lines(made)), flush=True)
    return {
        "row": dataclasses.asdict(row),
        "chips": made.mesh.size,
        "hbm": made.chip.memory,
        "mesh": dict(made.mesh.shape),
        "expected_flops": made.expected,
        "programs": [_kept(one) for one in made.programs],
    }


def _kept(program: Any) -> dict[str, Any]:
    memory, roof = program.memory, program.roofline
    return {
        "name": program.name,
        "memory": dataclasses.asdict(memory),
        "total": memory.total,
        "flops": program.counts.flops,
        "hbm_bytes": program.counts.memory,
        "useful": program.useful,
        "wires": [dataclasses.asdict(wire) for wire in program.counts.wires],
        "times": {"compute": roof.compute, "HBM": roof.memory, "wires": roof.wires},
        "by_wire": roof.by_wire,
        "step": [roof.shortest, roof.longest],
        "mfu": [roof.mfu_alone, roof.mfu],
        "seconds": program.seconds,
    }


def lines(results: list[dict[str, Any]]) -> list[str]:
    """The table as Markdown, a line each."""
    head = (
        "| model | slice | rows a chip | GiB a chip (of HBM) | TFLOPs (by hand) | compute, HBM, "
        "wires (ms) | step (ms) | MFU | most on the wires |"
    )
    made = [head, "|---|---|---:|---:|---:|---:|---:|---:|---|"]
    for result in results:
        row = result["row"]
        for one in result["programs"]:
            made.append(_line(result, row, one))
    return made


def _line(result: dict[str, Any], row: dict[str, Any], one: dict[str, Any]) -> str:
    times = ", ".join(f"{1e3 * one['times'][key]:.0f}" for key in ("compute", "HBM", "wires"))
    most = ", ".join(f"{kind} {1e3 * seconds:.0f} ms" for kind, _, seconds in one["by_wire"][:2])
    by_hand = f" ({result['expected_flops'] / 1e12:.1f})" if one["name"] == "train" else ""
    cells = (
        row["preset"] + ("" if one["name"] == "train" else f", {one['name']}"),
        row["topology"],
        f"{row['rows'] / result['chips']:g}",
        f"{one['total'] / 2**30:.2f} ({100 * one['total'] / result['hbm']:.0f} %)",
        f"{one['flops'] / 1e12:.1f}{by_hand}",
        times,
        f"{1e3 * one['step'][0]:.0f} - {1e3 * one['step'][1]:.0f}",
        f"{100 * one['mfu'][0]:.0f} - {100 * one['mfu'][1]:.0f} %",
        most,
    )
    return f"| {' | '.join(cells)} |"


def stored() -> list[dict[str, Any]]:
    """Results so far, in the order of `ROWS`."""
    files = [RESULTS / f"{row.name}.json" for row in ROWS]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def main(argv: list[str]) -> None:
    """Compile what is missing, then print the table."""
    del argv
    only = flags.FLAGS.only
    for row in () if flags.FLAGS.table else ROWS:
        file = RESULTS / f"{row.name}.json"
        if only == row.name or (not only and not file.exists()):
            RESULTS.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(measure(row), indent=1) + "\n")
    print("\n".join(lines(stored())))


if __name__ == "__main__":
    flags.DEFINE_bool("table", False, "Print what is stored, compile nothing.")
    flags.DEFINE_string("only", "", "Compile this row anew, and no other.")
    app.run(main)
