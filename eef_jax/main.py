"""The main job: `python -m eef_jax.main --config=webshop --workdir=runs/demo`.

Reads flags, calls `pipeline.run`, prints its table.
"""

from typing import Any

from absl import flags

from eef_jax import cli
from eef_jax.cluster import distributed
from eef_jax.config import Config
from eef_jax.errors import ConfigError
from eef_jax.storage.stages import KINDS
from eef_jax.untrusted import show

cli.define_config()
_WORKDIR = cli.define_path(
    "workdir",
    None,
    "Folder of the run, local or gs://; by default runs/ENVIRONMENT-METHOD-SEED, with -xROLLOUTS "
    "after the METHOD that plays several.",
)
_STAGES = flags.DEFINE_list(
    "stages", None, "Kinds of stages to run: expert,explore,select,tune,evaluate,report. All."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Delete what a run with another config left in the work folder."
)
_NEW_NUMERICS = flags.DEFINE_bool(
    "new_numerics",
    False,
    "Choose meshes, sizes and kernels (fields of the kind numerics) anew; otherwise a run keeps "
    "what its first start chose. The last bits of what is made from now on change.",
)
_CHECK = flags.DEFINE_bool(
    "check", False, "Make the checks of a start alone, say what the run would do, and exit."
)
_DEVICES = flags.DEFINE_integer(
    "devices", 0, "With --check: devices of the planned run, of all --processes; 0: those here."
)
distributed.define_flags()


def main() -> None:
    """Run the config that the flags name."""
    config = cli.read_config()
    if config is None:
        raise ConfigError("no --config was given; the demo's is --config=webshop")
    # Not at the top: --help and a wrong field are answered before anything heavy is imported.
    from eef_jax import pipeline, starting

    workdir = _WORKDIR.value or _default_workdir(config)
    stages = tuple(_STAGES.value or KINDS)
    common: dict[str, Any] = {
        "stages": stages,
        "overwrite": _OVERWRITE.value,
        "new_numerics": _NEW_NUMERICS.value,
        "source": flags.FLAGS.config,
    }
    if _CHECK.value:
        processes = flags.FLAGS.processes or 1
        show(starting.check(config, workdir, devices=_DEVICES.value, processes=processes, **common))
        show("all checks passed")
        return
    with distributed.from_flags() as hosts:
        table = pipeline.run(config, workdir, hosts=hosts, **common)
        if hosts.is_lead:
            show(table)


def _default_workdir(config: Config) -> str:
    """A folder for each environment, method, number of rollouts and seed."""
    rollouts = getattr(config.method.options, "rollouts", None)
    method = config.method.name if rollouts is None else f"{config.method.name}-x{rollouts}"
    return f"runs/{config.env.name}-{method}-{config.seed}"


def run() -> None:
    """Run the command."""
    cli.run(main, interrupted="the same command goes on: finished stages and episodes are kept")


if __name__ == "__main__":
    run()
