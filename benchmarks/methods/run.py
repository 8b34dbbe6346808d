"""EEF compared with its baselines: `python -m benchmarks.methods --seeds=3 --workdir=runs/methods`.

Each method and seed is a complete run in `<workdir>/seed_<n>/<method>`. What methods have in common
is made once: the stage `expert` is copied from a seed's first run to the others, and the clone to
those that learn the same in it. The command resumes when it is started again. The figures of each
finished run are written to `--results`, and `--table` prints the table from there without running
anything. The configs of a seed differ in the section `method` only.
"""

import concurrent.futures
import functools
import logging
import multiprocessing
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath

from benchmarks.methods import comparison
from eef_jax import cli, lineage, plugins
from eef_jax import config as config_lib
from eef_jax.config import Config, numerics
from eef_jax.errors import ConfigError, DataError, did_you_mean
from eef_jax.storage import manifest, sealed, selections
from eef_jax.storage.provenance import json_values
from eef_jax.storage.workdir import CONFIG, Stage, Workdir, open_workdir, read_workdir

SHARED = "expert"
SELECTED = "round_0/select"
CLONE = (SELECTED, "round_0/tune", "round_0/evaluate")
RESULTS = pathlib.Path(__file__).parents[1] / "results"

_log = logging.getLogger(__name__)


@functools.cache
def variants() -> Mapping[str, Mapping[str, Any]]:
    """Fields of the section `method` that each method's variants set, by their names.

    Methods that play nothing come first, the one that all others are baselines of last.
    """
    found: dict[str, Mapping[str, Any]] = {}
    rounds: dict[str, int] = {}
    for name in plugins.available("methods"):
        module = plugins.load("methods", name)
        for variant, fields in getattr(module, "VARIANTS", {name: {}}).items():
            found[variant] = {"name": name, **fields}
            rounds[variant] = module.make(module.Config(**fields)).rounds
    order = sorted(found, key=lambda one: (one == comparison.SUBJECT, rounds[one] > 0))
    return {one: found[one] for one in order}


def configure(base: Mapping[str, Any], method: str, seed: int, split: str) -> Config:
    """The config of one run.

    Args:
        base: plain values that all runs share; its section `method` is EEF's.
        method: name of a variant, of `variants`.
        seed: seed of the run.
        split: split to evaluate on.

    Raises:
        ConfigError: the base's K does not fit the method.
    """
    variant = dict(variants()[method])
    section = config_lib.switched("method", variant.pop("name"), base["method"]) | variant
    if section.get("rollouts") == "matched":
        section["eef_rollouts"] = base["method"]["rollouts"]
    evaluate = {**base["evaluate"], "split": split}
    return config_lib.read({**base, "seed": seed, "method": section, "evaluate": evaluate})


def share(source: epath.Path, work: Workdir, names: Sequence[str], config: Config) -> None:
    """Copy stages of another run, manifests last; does nothing unless the last one is to be made.

    Args:
        source: the work folder of the other run.
        work: the run to copy to.
        names: of the stages, which both runs would make the same.
        config: of the run to copy to; it differs in the section `method` alone.
    """
    found = [_stage(source, name) for name in names]
    if work.stage(names[-1]).done() or not all(stage.done() for stage in found):
        return
    record = numerics.read(source)
    if record is not None and numerics.read(work.root) is None:
        numerics.write(work.root, record)  # all runs of a comparison compute alike
    for stage in found:
        target = work.stage(stage.name)
        _copy(stage.folder, target.start(), but=manifest.NAME)
        said = stage.manifest()
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
        others = [
            folder / one
            for one, its in configs.items()
            if one != method and is_run_of(folder / one, its)
        ]
        _log.info("%s, seed %s", method, config.seed)
        with open_workdir(folder / method, config_lib.plain(config)) as work:
            for other in others:
                share(other, work, [SHARED], config)
        run = functools.partial(pipeline.run, config, str(folder / method))
        if others:  # its own selection tells whether the clone is another run's
            pool.submit(run, stages=("expert", "select")).result()
        with open_workdir(folder / method, config_lib.plain(config)) as work:
            for other in others:
                if _same_clone(other, folder / method):
                    share(other, work, CLONE, config)
        pool.submit(run).result()
        comparison.write(path, comparison.collect(read_workdir(folder / method), method))


def _stage(folder: epath.Path, name: str) -> Stage:
    return Stage(name=name, folder=folder / name)


def _same_clone(one: epath.Path, other: epath.Path) -> bool:
    """Whether the clones of two runs of one setting are the same: what they learn tells."""
    stages = [_stage(folder, SELECTED) for folder in (one, other)]
    if not all(stage.done() for stage in stages):
        return False
    first, second = ((stage.folder / selections.FILE).read_bytes() for stage in stages)
    return first == second


def name_of(config: Config, method: str) -> str:
    """Name of a figures file."""
    return f"{config.evaluate.split}-{method}-{config.seed}.json"


def read_table(results: epath.Path, split: str, methods: Sequence[str], seeds: range) -> str:
    """The table of the figures files that exist.

    Args:
        results: folder of the figures files.
        split: split that was evaluated.
        methods: names of variants, of `variants`.
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


def _copy(source: epath.Path, target: epath.Path, *, but: str = "") -> None:
    """Copy a folder's files, without one of the name `but` in the folder itself."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            _copy(path, target / path.name)
        elif path.name != but:
            path.copy(target / path.name, overwrite=True)


def _main() -> None:
    given = flags.FLAGS
    for method in given.methods:
        if method not in variants():
            raise ConfigError(
                f"unknown method {method!r} in --methods: {did_you_mean(method, variants())}"
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
        "methods", list(variants()), "Methods to compare; what they share, the first one makes."
    )
    flags.DEFINE_string("split", None, "Split to evaluate: dev or test. Default: the config's.")
    cli.define_path("workdir", "runs/methods", "Folder of the runs.")
    cli.define_path("results", str(RESULTS), "Folder of the figures files.")
    flags.DEFINE_integer("jobs", 1, "Seeds to run concurrently.", lower_bound=1)
    flags.DEFINE_bool("table", False, "Only print the table of --results.")
    cli.define_config("configs/webshop.py")
    cli.run(_main)
