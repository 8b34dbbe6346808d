"""EEF compared with its baselines: `python -m benchmarks.methods --seeds=3 --workdir=runs/methods`.

Each method and seed is a complete run in `<workdir>/seed_<n>/<method>`. All methods of a seed start
from the same clone: finished `expert` and `round_0` stages are copied from one to the others. The
command resumes when it is started again. The figures of each finished run are written to
`--results`, and `--table` prints the table from there without running anything. The configs of a
seed differ in the section `method` only.
"""

import concurrent.futures
import logging
import multiprocessing
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath

from benchmarks.methods import comparison
from eef_jax import cli, lineage
from eef_jax import config as config_lib
from eef_jax.config import Config
from eef_jax.errors import ConfigError, DataError, did_you_mean
from eef_jax.storage import manifest, sealed
from eef_jax.storage.provenance import json_values
from eef_jax.storage.workdir import CONFIG, Stage, open_workdir, read_workdir

# Fields of the section `method` that each variant sets; EEF takes the config's own K.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "sft_positive": {"name": "sft_positive"},
    "rft": {"name": "rft", "rollouts": 1},
    "rft_x6": {"name": "rft", "rollouts": 6},
    "rft_matched": {"name": "rft", "rollouts": "matched"},
    "eef": {"name": "eef"},
}
CLONE = ("expert", "round_0/select", "round_0/tune", "round_0/evaluate")
RESULTS = pathlib.Path(__file__).parents[1] / "results"

_log = logging.getLogger(__name__)


def configure(base: Mapping[str, Any], method: str, seed: int, split: str) -> Config:
    """The config of one run.

    Args:
        base: plain values that all runs share; its section `method` is EEF's.
        method: name of a variant in `METHODS`.
        seed: seed of the run.
        split: split to evaluate on.

    Raises:
        ConfigError: the base's K does not fit the method.
    """
    variant = dict(METHODS[method])
    section = config_lib.switched("method", variant.pop("name"), base["method"]) | variant
    if section.get("rollouts") == "matched":
        section["eef_rollouts"] = base["method"]["rollouts"]
    evaluate = {**base["evaluate"], "split": split}
    return config_lib.read({**base, "seed": seed, "method": section, "evaluate": evaluate})


def share(source: Stage, target: Stage, config: Config) -> None:
    """Copy a finished stage, its manifest last; does nothing where the target is finished.

    Args:
        source: a stage of `CLONE`, which all methods here make the same.
        target: the same stage of another run.
        config: of the other run, which differs in the section `method` alone.
    """
    if not source.done() or target.done():
        return
    _copy(source.folder, target.start())
    said = source.manifest()
    made_from = {**said["made_from"], **lineage.sections(config, target.name)}
    sealed.write(target.folder / manifest.NAME, {**said, "made_from": made_from})


def run_seed(
    configs: Mapping[str, Config],
    folder: epath.Path,
    results: epath.Path,
    pool: concurrent.futures.Executor,
) -> None:
    """Run all methods of one seed, one after the other.

    Args:
        configs: config of each method.
        folder: folder of the methods' work folders.
        results: folder of the figures files.
        pool: executor with a fresh process for each run, which frees its memory when it ends.
    """
    from eef_jax import pipeline, starting

    for method, config in configs.items():
        path = results / name_of(config, method)
        if path.exists() and comparison.load(path).config_hash == starting.hash_of(config):
            _log.info("%s exists already", path)
            continue
        with open_workdir(folder / method, config_lib.plain(config)) as work:
            for other in configs:
                for name in CLONE if is_run_of(folder / other, configs[other]) else ():
                    share(Stage(name=name, folder=folder / other / name), work.stage(name), config)
        _log.info("%s, seed %s", method, config.seed)
        pool.submit(pipeline.run, config, str(folder / method)).result()
        comparison.write(path, comparison.collect(read_workdir(folder / method), method))


def name_of(config: Config, method: str) -> str:
    """Name of a figures file."""
    return f"{config.evaluate.split}-{method}-{config.seed}.json"


def read_table(results: epath.Path, split: str, methods: Sequence[str], seeds: range) -> str:
    """The table of the figures files that exist.

    Args:
        results: folder of the figures files.
        split: split that was evaluated.
        methods: names of variants in `METHODS`.
        seeds: seeds of the runs.

    Raises:
        DataError: there are no figures files, or they are of different settings.
    """
    names = [f"{split}-{method}-{seed}.json" for method in methods for seed in seeds]
    found = [comparison.load(results / name) for name in names if (results / name).exists()]
    if not found:
        raise DataError(
            f"{results} has no figures of the {split} split, these methods and seeds "
            f"{seeds.start} to {seeds.stop - 1}: run without --table first"
        )
    return comparison.table(found)


def is_run_of(folder: epath.Path, config: Config) -> bool:
    """Whether a folder holds a run of exactly this config."""
    values = json_values(config_lib.plain(config))
    return (folder / CONFIG).exists() and read_workdir(folder).config == values


def _copy(source: epath.Path, target: epath.Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            _copy(path, target / path.name)
        elif path.name != manifest.NAME:
            path.copy(target / path.name, overwrite=True)


def _main() -> None:
    given = flags.FLAGS
    for method in given.methods:
        if method not in METHODS:
            raise ConfigError(
                f"unknown method {method!r} in --methods: {did_you_mean(method, METHODS)}"
            )
    config = cli.read_config()
    assert config is not None, "the flag has a default"
    base = config_lib.plain(config)
    split = given.split or base["evaluate"]["split"]
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    results = epath.Path(given.results)
    if not given.table:
        results.mkdir(parents=True, exist_ok=True)
        _run(base, seeds, split, results)
    print(read_table(results, split, given.methods, seeds))


def _run(base: Mapping[str, Any], seeds: range, split: str, results: epath.Path) -> None:
    """Run all seeds, `--jobs` of them concurrently."""
    given = flags.FLAGS
    processes = concurrent.futures.ProcessPoolExecutor(
        given.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=cli.plain_logs,
        max_tasks_per_child=1,
    )
    with processes as pool, concurrent.futures.ThreadPoolExecutor(given.jobs) as threads:
        runs = [
            threads.submit(
                run_seed,
                {method: configure(base, method, seed, split) for method in given.methods},
                epath.Path(given.workdir) / f"seed_{seed}",
                results,
                pool,
            )
            for seed in seeds
        ]
        for run in runs:
            run.result()


def run() -> None:
    """Run the command."""
    flags.DEFINE_integer("seeds", 3, "Number of seeds.", lower_bound=1)
    flags.DEFINE_integer("first_seed", 0, "The first seed.")
    flags.DEFINE_list(
        "methods", list(METHODS), "Methods to compare; the first one makes the clone."
    )
    flags.DEFINE_string("split", None, "Split to evaluate: dev or test. Default: the config's.")
    cli.define_path("workdir", "runs/methods", "Folder of the runs.")
    cli.define_path("results", str(RESULTS), "Folder of the figures files.")
    flags.DEFINE_integer("jobs", 1, "Seeds to run concurrently.", lower_bound=1)
    flags.DEFINE_bool("table", False, "Only print the table of --results.")
    cli.define_config("configs/webshop.py")
    cli.run(_main)
