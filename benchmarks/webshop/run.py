"""WebShop's speed and memory: `python -m benchmarks.webshop --data=FOLDER --workdir=runs/webshop`.

Prints one table of figures with their required bounds. FOLDER holds the small official files
(`items_shuffle_1000.json`, `items_ins_v2_1000.json`, and optionally `title_nouns.json`), which
larger catalogues are replicated from. Every figure is measured in a fresh process, and datasets
that are imported already are reused. Speeds are per core, by CPU time, which other work on the
machine affects less than wall time; loading is reported in both.

The figures of the original in docs/webshop.md were measured by running it.
"""

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from benchmarks.common.measurement import Measurement, table
from benchmarks.webshop import catalogues
from benchmarks.webshop import probe as probe_lib
from eef_jax import cli
from eef_jax.envs.webshop import importer, stored
from eef_jax.errors import ConfigError

ORIGINAL = 58  # steps/s per core of the original on the same 1,000 products
SMALL, LARGE = 1_000, 100_000  # products
LOADS = 5  # processes that load a dataset; the fastest one counts


def figures(data: pathlib.Path, workdir: pathlib.Path) -> list[Measurement]:
    """Measure loading, playing, searching and memory."""
    small = imported(workdir / "1k", lambda folder: _official(data), data)
    large = imported(workdir / "100k", lambda folder: _replicated(data, folder), data)
    speed = probe("speed", small)
    rows = [
        Measurement(
            name="1k: steps of search, click, option, buy",
            value=speed["steps_per_s"],
            unit="/s",
            bound=100 * ORIGINAL,
            at_most=False,
        ),
        *_loads("1k", small),
        *_loads("100k", large),
        Measurement(
            name="100k: search, median",
            value=probe("search", large)["median_ms"],
            unit="ms",
            bound=5,
        ),
    ]
    games = {name: probe("games", folder) for name, folder in (("1k", small), ("100k", large))}
    for name, found in games.items():
        rows.append(
            Measurement(
                name=f"{name}: 1,000 live episodes add",
                value=found["added_mb"],
                unit="MB",
                bound=20,
            )
        )
    return rows


def _loads(name: str, folder: pathlib.Path) -> list[Measurement]:
    """Time and memory of importing the module and loading a dataset, the best of `LOADS` runs."""
    runs = [probe("load", folder) for _ in range(LOADS)]
    wall, cpu = (min(run[key] for run in runs) for key in ("wall_s", "cpu_s"))
    memory = max(run["rss_mb"] for run in runs)
    return [
        Measurement(name=f"{name}: import and load, wall time", value=wall, unit="s", bound=1),
        Measurement(name=f"{name}: the same, CPU time", value=cpu, unit="s", bound=1),
        Measurement(name=f"{name}: memory after it", value=memory, unit="MB", bound=150),
    ]


def import_figures(workdir: pathlib.Path, count: int) -> list[Measurement]:
    """Measure the peak memory of importing `count` generated products, and twice as many."""
    peaks = []
    for size in (count, 2 * count):
        folder = workdir / f"generated-{size}"
        if not (folder / "products.json").exists():
            catalogues.generate(folder, size)
        peaks.append(probe("import", folder)["peak_mb"])
    return [
        Measurement(
            name=f"import of {2 * count:,} products: peak over that of {count:,} "
            f"({peaks[1]:,.0f} and {peaks[0]:,.0f} MB)",
            value=peaks[1] / peaks[0],
            unit="x",
            bound=1.3,
        )
    ]


def imported(
    folder: pathlib.Path,
    files: Callable[[pathlib.Path], Mapping[str, pathlib.Path]],
    data: pathlib.Path,
) -> pathlib.Path:
    """Import a dataset unless its folder exists.

    Args:
        folder: folder of the imported dataset.
        files: makes the official files to import, given a folder to write to.
        data: folder that may hold `title_nouns.json`.

    Returns:
        The folder.
    """
    if not (folder / stored.MANIFEST).exists():
        nouns = data / "title_nouns.json"
        paths = {what: str(path) for what, path in files(folder.with_suffix(".source")).items()}
        sources = importer.Sources(
            products=paths["products"],
            attributes=paths["attributes"],
            title_nouns=str(nouns) if nouns.exists() else "",
        )
        importer.import_dataset(sources, folder)
    return folder


def _official(data: pathlib.Path) -> dict[str, pathlib.Path]:
    return {
        "products": data / "items_shuffle_1000.json",
        "attributes": data / "items_ins_v2_1000.json",
    }


def _replicated(data: pathlib.Path, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The small catalogue replicated to `LARGE` products with new ids."""
    rows, labels = (json.loads(path.read_text("utf-8")) for path in _official(data).values())
    catalogues.replicate(folder, rows, labels, LARGE // SMALL)
    return {what: folder / f"{what}.json" for what in ("products", "attributes")}


def probe(what: str, folder: pathlib.Path) -> dict[str, Any]:
    """Run one of `probe.PROBES` in a fresh process and return its figures."""
    command = [sys.executable, "-m", probe_lib.__name__, what, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Print the table."""
    data, workdir = pathlib.Path(FLAGS.data), pathlib.Path(FLAGS.workdir)
    rows = []
    if FLAGS.generated:
        rows += import_figures(workdir, FLAGS.generated)
    if FLAGS.data:
        if not _official(data)["products"].exists():
            raise ConfigError(
                f"--data={data} holds no items_shuffle_1000.json: docs/webshop.md says where it is"
            )
        rows += figures(data, workdir)
    if not rows:
        raise ConfigError("give --data (a folder with the small official files) or --generated")
    print(table(rows))


FLAGS = flags.FLAGS


def run() -> None:
    """Run the command."""
    cli.define_path("data", "", "Folder of the small official files.", local=True)
    cli.define_path("workdir", "runs/webshop", "Folder of the imported datasets.", local=True)
    flags.DEFINE_integer(
        "generated", 0, "Also import this many generated products, and twice as many."
    )
    cli.run(main)
