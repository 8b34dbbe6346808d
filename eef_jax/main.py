"""The main job: `python -m eef_jax.main --config=configs/webshop.py --workdir=runs/demo`.

Reads flags, calls `pipeline.run`, prints its table.
"""

from absl import flags

from eef_jax import cli
from eef_jax.cluster import distributed
from eef_jax.errors import ConfigError

cli.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, local or gs://; by default runs/ENVIRONMENT-METHOD-SEED.",
)
_STAGES = flags.DEFINE_list(
    "stages", None, "Kinds of stages to run: expert,explore,select,tune,evaluate,report. All."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Delete what a run with another config left in the work folder."
)
distributed.define_flags()


def main() -> None:
    """Run the config that the flags name."""
    config = cli.read_config()
    if config is None:
        raise ConfigError("no --config was given; the demo's is --config=configs/webshop.py")
    # Not at the top: --help and a wrong field are answered before anything heavy is imported.
    from eef_jax import pipeline

    with distributed.from_flags() as hosts:
        table = pipeline.run(
            config,
            _WORKDIR.value or f"runs/{config.env.name}-{config.method.name}-{config.seed}",
            stages=tuple(_STAGES.value or pipeline.STAGES),
            overwrite=_OVERWRITE.value,
            hosts=hosts,
        )
        if hosts.is_lead:
            print(table)


if __name__ == "__main__":
    cli.run(main)
