"""The main job: `python -m eef_jax.main --config=configs/webshop.py --workdir=runs/demo`.

Reads flags, calls `pipeline.run`, prints its table.
"""

from absl import flags
from ml_collections import config_flags

from eef_jax import cli
from eef_jax.cluster import distributed
from eef_jax.errors import ConfigError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with a preset after a colon: configs/webshop.py:tiny."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run, local or gs://; by default runs/<method>-<seed>."
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
    from eef_jax import pipeline

    if _CONFIG.value is None:
        raise ConfigError("no --config was given; the demo's is --config=configs/webshop.py")
    config = _CONFIG.value.to_dict()
    method = config["method"]
    default = (
        f"runs/{config['env']['name']}-{method['name']}-x{method['rollouts']}-{config['seed']}"
    )
    with distributed.from_flags() as hosts:
        table = pipeline.run(
            config,
            _WORKDIR.value or default,
            stages=tuple(_STAGES.value or pipeline.STAGES),
            overwrite=_OVERWRITE.value,
            hosts=hosts,
        )
        if hosts.is_lead:
            print(table)


if __name__ == "__main__":
    cli.run(main)
