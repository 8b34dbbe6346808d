"""Evaluate a checkpoint: `python -m eef_jax.evaluate --checkpoint=runs/demo/round_3/tune`.

Plays a split's tasks once and prints win rate and mean reward with 95 % intervals, in all and by
tag. The config is the one that the checkpoint's run was made with, unless `--config` gives another;
with `--config` alone the base plays as it is, or its adapter (`--config.model.adapter`). Writes
nothing, but several processes need a folder that all see to put their results together
(`--scratch`). Errors that a user can mend are printed without a traceback, with exit code 1.
"""

import contextlib
import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath

from eef_jax import cli, lineage
from eef_jax import config as config_lib
from eef_jax import scores as scores_lib
from eef_jax.cluster import distributed
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.config import Config
from eef_jax.envs.base import Env
from eef_jax.errors import ConfigError, DataError
from eef_jax.methods import base as methods
from eef_jax.rollout import play
from eef_jax.storage import files
from eef_jax.storage.stages import Schedule
from eef_jax.storage.workdir import CONFIG, find_checkpoint, read_workdir
from eef_jax.types import Attempt
from eef_jax.untrusted import show

_log = logging.getLogger(__name__)


def evaluate(
    checkpoint: epath.Path | None,
    config: Config,
    *,
    hosts: Hosts = SINGLE_PROCESS,
    scratch: str | None = None,
    source: str = "",
) -> Sequence[Attempt]:
    """Play the split `config.evaluate.split` with a checkpoint.

    Args:
        checkpoint: a checkpoint's own folder (`find_checkpoint`); None for the untuned base.
        config: the run's config.
        hosts: the processes that play, each its share; the lead gets all trajectories.
        scratch: with several processes, a folder that all see; its `parts` are deleted afterwards.
        source: where the config comes from, for the header.

    Raises:
        DataError: the checkpoint is damaged or belongs to another base.
        ConfigError: the config cannot be used.
        RolloutError: too many episodes ended in an infrastructure failure.
    """
    # Not at the top: --help and a wrong path need no accelerator library.
    from eef_jax import pipeline, preflight, starting
    from eef_jax.learner.placement import Placement
    from eef_jax.learner.sampling import Sampler
    from eef_jax.preflight import forecast
    from eef_jax.train import checkpoint as checkpoints

    if hosts.process_count > 1 and not scratch:
        raise ConfigError(
            "several processes put their results together through storage: give --scratch, a "
            "folder that all of them see"
        )
    if checkpoint is not None:
        checkpoints.read_metadata(checkpoint)  # fails early, before products and models are loaded
    config = starting.pinned(config, hosts=hosts)
    env: Env = config_lib.make("env", config.env)
    try:
        method = config_lib.make("method", config.method)
        start = preflight.Start(
            config=config,
            schedule=Schedule(done=(), todo=("evaluate",), left_out=()),
            env=env,
            method=method,
        )
        preflight.check(start)
        if checkpoint is not None:
            lineage.warn_of_stale(checkpoint, env=env)
        _log.info(forecast.header(start, source=source) + "\n")
        max_steps = config.rollout.max_steps or env.max_steps
        sampler = Sampler(Placement(config, hosts), config.engine)
        with (
            _parts(scratch, hosts) as parts,
            pipeline.evaluated(
                sampler,
                checkpoint,
                config.evaluate,
                seed=config.seed,
                mark=methods.mark_of(method),
            ) as policy,
        ):
            played, _ = play.play_stage(
                env,
                policy,
                pipeline.held_out(env, config.evaluate.split, max_steps),
                config.rollout,
                hosts=hosts,
                parts=parts,
                provenance=starting.provenance_of(config),
                label=f"evaluate, {config.evaluate.split} tasks",
            )
    finally:
        env.close()
    return played


@contextlib.contextmanager
def _parts(scratch: str | None, hosts: Hosts) -> Iterator[epath.Path]:
    """A folder for episodes as they end, which all processes see; empty before and after."""
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="eef-evaluate-") as folder:
            yield epath.Path(folder)
        return
    parts = epath.Path(scratch) / "parts"
    if hosts.is_lead:
        parts.rmtree(missing_ok=True)
    hosts.barrier()
    yield parts
    if hosts.is_lead:
        parts.rmtree(missing_ok=True)


def config_of(checkpoint: epath.Path) -> Mapping[str, Any]:
    """The config of the run that made a checkpoint.

    Raises:
        DataError: the checkpoint is not inside a run's work folder.
    """
    for folder in files.parents(checkpoint):
        if (folder / CONFIG).exists():
            return read_workdir(folder).config
    raise DataError(
        f"no folder above {checkpoint} holds a run's {CONFIG}: name the run by --workdir, or "
        "give the config it was made with by --config"
    )


def describe_policy(checkpoint: epath.Path | None, config: Config) -> str:
    """Who plays, in words: a checkpoint, an adapter on its base, or the base as it is."""
    base = config.model.path or "the base that ships for WebShop"
    if checkpoint is not None:
        return os.fspath(checkpoint)
    if config.model.adapter:
        return f"the adapter {config.model.adapter} on {base}"
    return f"the untuned base ({base})"


def describe(trajectories: Sequence[Attempt]) -> str:
    """Scores in all and by tag, a line each."""
    scores = {"all": scores_lib.score(trajectories), **scores_lib.by_tag(trajectories)}
    width = max(map(len, scores))
    return "\n".join(f"{name:<{width}}  {score}" for name, score in scores.items())


def _main() -> None:
    given = flags.FLAGS
    if not given.checkpoint and given.config is None:
        raise ConfigError(
            "no --checkpoint was given, such as --checkpoint=runs/demo/round_3/tune (with --config "
            "alone the untuned base plays)"
        )
    checkpoint = find_checkpoint(given.checkpoint) if given.checkpoint else None
    config = cli.read_config()
    if config is None:
        work = read_workdir(given.workdir).config if given.workdir else config_of(checkpoint)
        config = config_lib.override(work, cli.overrides())
    if given.split:
        config = dataclasses.replace(
            config, evaluate=dataclasses.replace(config.evaluate, split=given.split)
        )
    with distributed.from_flags() as hosts:
        source = given.config or "of the checkpoint's run"
        played = evaluate(checkpoint, config, hosts=hosts, scratch=given.scratch, source=source)
        if hosts.is_lead:
            who, split = describe_policy(checkpoint, config), config.evaluate.split
            show(f"{who} on the {split} tasks of {config.env.name}")
            show(describe(played))


def run() -> None:
    """Run the command."""
    # Not at import: another command may define flags of the same names in one process.
    cli.define_path("checkpoint", None, "Folder of a finished tune stage.")
    flags.DEFINE_enum("split", None, ("train", "dev", "test"), "Tasks to play. The config's own.")
    cli.define_path("workdir", None, "Run to take the config from. The checkpoint's own.")
    cli.define_config()
    cli.define_path("scratch", None, "Several processes: a folder that all of them see.")
    distributed.define_flags()
    cli.run(_main)


if __name__ == "__main__":
    run()
