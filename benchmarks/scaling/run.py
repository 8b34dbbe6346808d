"""Memory, FLOPs and rooflines on TPU slices, ahead of time: the tables of docs/scaling.md.

`python -m benchmarks.scaling` compiles every row that has no file in benchmarks/results/scaling
(minutes each, on a CPU with the extra `tpu-aot`); `--table` prints the stored results;
`--only=NAME` compiles one row again. All figures come from `eef_jax.analysis`.
"""

import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.common import tables

RESULTS = Path(__file__).parents[1] / "results" / "scaling"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One program to compile, a row of a table.

    Attributes:
        preset: name of a preset of configs/webshop.py.
        topology: name of the slice.
        rows: rows of the global batch.
        program: the program to compile, out of `analysis.plan.PROGRAMS`.
        data: size of the mesh axis `data`: replicas of the weights during training.
    """

    preset: str
    topology: str
    rows: int
    program: str = "train"
    data: int = 1

    @property
    def name(self) -> str:
        """Name of its results file."""
        parts = [self.preset, self.topology.replace(":", "-")]
        parts += [self.program] if self.program != "train" else []
        parts += [f"data-{self.data}"] if self.data != 1 else []
        return "_".join(parts)


ROWS = (
    Row(preset="llama3_8b", topology="v5e:4x4", rows=16),
    Row(preset="llama3_8b", topology="v5e:16x16", rows=256),
    Row(preset="llama3_8b", topology="v5e:16x16", rows=256, data=16),
    Row(preset="llama3_8b", topology="v6e:4x4", rows=16),
    Row(preset="qwen2_5_1_5b", topology="v5e:2x2", rows=4),
    Row(preset="llama3_70b", topology="v6e:16x16", rows=256),
    *(
        Row(preset=preset, topology=topology, rows=rows, program=program)
        for preset, topology, rows in (
            ("llama3_8b", "v5e:4x4", 16),
            ("llama3_8b", "v6e:4x4", 16),
            ("qwen2_5_1_5b", "v5e:2x2", 4),
        )
        for program in ("prefill", "decode")
    ),
)


def measure(row: Row) -> dict[str, Any]:
    """Compile a row's program.

    Args:
        row: what to compile.

    Returns:
        What the tables need, as JSON values.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    from eef_jax import config as config_lib
    from eef_jax.analysis import plan, table
    from eef_jax.configs import webshop

    config = webshop.get_config(row.preset)
    config.train.batch_size, config.mesh.data = row.rows, row.data
    typed = config_lib.read(config.to_dict())
    made = plan.plan(typed, row.topology, wanted=(row.program,))
    print("\n".join(table.format_plan(made)), flush=True)
    engine_config = typed.engine
    return {
        "row": dataclasses.asdict(row),
        "compiler": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
        "chips": made.mesh.size,
        "hbm": made.chip.hbm_bytes,
        "cache": made.cache_bytes,
        "mesh": dict(made.mesh.shape),
        "rollout_mesh": dict(made.rollout_mesh.shape),
        "expected_flops": made.expected_flops,
        "tokens": {"prefill": engine_config.prefill_tokens, "decode": engine_config.max_num_seqs},
        "program": _to_json(made.programs[0]),
    }


def _to_json(program: Any) -> dict[str, Any]:
    memory, roof = program.memory, program.roofline
    return {
        "name": program.name,
        "memory": dataclasses.asdict(memory),
        "total": memory.total,
        "flops": program.counts.flops,
        "hbm_bytes": program.counts.memory,
        "model_flops": program.model_flops,
        "collectives": [dataclasses.asdict(one) for one in program.counts.collectives],
        "times": {"compute": roof.compute, "HBM": roof.memory, "communication": roof.communication},
        "by_collective": roof.by_collective,
        "step": [roof.time_overlapped, roof.time_serial],
        "mfu": [roof.mfu_serial, roof.mfu_overlapped],
        "seconds": program.seconds,
    }


def training(results: list[dict[str, Any]]) -> list[str]:
    """The table of training steps as Markdown, a line each."""
    header = ["model", "slice", "mesh", "rows a chip", "GiB a chip (of HBM)", "TFLOPs (analytic)"]
    header += ["compute, HBM, ICI (ms)", "step (ms)", "MFU", "largest collectives"]
    rows = []
    for result in results:
        row, one = result["row"], result["program"]
        if one["name"] != "train":
            continue
        cells = (
            row["preset"],
            row["topology"],
            _axes(result["mesh"]),
            f"{row['rows'] / result['chips']:g}",
            f"{one['total'] / 2**30:.2f} ({100 * one['total'] / result['hbm']:.0f} %)",
            f"{one['flops'] / 1e12:.1f} ({result['expected_flops'] / 1e12:.1f})",
            *_times(one),
            f"{100 * one['mfu'][0]:.0f} - {100 * one['mfu'][1]:.0f} %",
            _collectives(one),
        )
        rows.append(cells)
    return tables.table(header, rows, texts=3)


def sampling(results: list[dict[str, Any]]) -> list[str]:
    """The table of the engine's programs; the peak of a run includes what training holds."""
    header = ["model", "slice", "rollout mesh", "program, tokens", "GiB a chip"]
    header += ["peak of a run (of HBM)", "compute, HBM, ICI (ms)", "dispatch (ms)"]
    header += ["largest collectives"]
    rows = []
    for result in results:
        row, one = result["row"], result["program"]
        if one["name"] == "train":
            continue
        peak = _peak_bytes(results, row, result["cache"])
        cells = (
            row["preset"],
            row["topology"],
            _axes(result["rollout_mesh"]),
            f"{one['name']}, {result['tokens'][one['name']]}",
            f"{one['total'] / 2**30:.2f}",
            f"{peak / 2**30:.2f} ({100 * peak / result['hbm']:.0f} %)",
            *_times(one, digits=1),
            _collectives(one),
        )
        rows.append(cells)
    return tables.table(header, rows, texts=4)


def _axes(mesh: dict[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in mesh.items() if size > 1)


def _times(one: dict[str, Any], *, digits: int = 0) -> tuple[str, str]:
    parts = (f"{1e3 * one['times'][key]:.{digits}f}" for key in ("compute", "HBM", "communication"))
    return ", ".join(parts), " - ".join(f"{1e3 * seconds:.{digits}f}" for seconds in one["step"])


def _collectives(one: dict[str, Any]) -> str:
    """The two kinds of collective that take longest."""
    return ", ".join(
        f"{kind} {1e3 * seconds:.3g} ms" for kind, _, seconds in one["by_collective"][:2]
    )


def _peak_bytes(results: list[dict[str, Any]], row: dict[str, Any], cache: int) -> int:
    """Peak bytes per chip of a run that alternates training and sampling."""
    from eef_jax.analysis import plan, programs

    same = ("preset", "topology", "data")
    return plan.peak_bytes(
        {
            one["program"]["name"]: programs.Memory(**one["program"]["memory"])
            for one in results
            if all(one["row"][key] == row[key] for key in same)
        },
        cache_bytes=cache,
    )


def stored() -> list[dict[str, Any]]:
    """The stored results, in the order of `ROWS`."""
    files = [RESULTS / f"{row.name}.json" for row in ROWS]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def main(argv: list[str]) -> None:
    """Compile what is missing, then print the tables."""
    del argv
    only = flags.FLAGS.only
    for row in () if flags.FLAGS.table else ROWS:
        file = RESULTS / f"{row.name}.json"
        if only == row.name or (not only and not file.exists()):
            RESULTS.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(measure(row), indent=1) + "\n")
    results = stored()
    print("\n".join([*training(results), *sampling(results)]))


def run() -> None:
    """Run the command."""
    flags.DEFINE_bool("table", False, "Print the stored results, compile nothing.")
    flags.DEFINE_string("only", "", "Compile only this row, again.")
    app.run(main)
