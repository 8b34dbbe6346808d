"""The main job: `python -m eef_jax.main --config=configs/webshop.py --workdir=runs/demo`.

Reads flags, calls `pipeline.run`, prints its table. Errors that a user can mend are printed without
a traceback, and the exit code is 1.
"""

import logging
import sys

from absl import app, flags
from ml_collections import config_flags

from eef_jax.errors import ConfigError, EefError

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


def main(argv: list[str]) -> None:
    """Run the config."""
    from eef_jax import pipeline

    if len(argv) > 1:
        raise ConfigError(f"unexpected arguments {argv[1:]}: every setting is a --flag=value")
    if _CONFIG.value is None:
        raise ConfigError("no --config was given; the demo's is --config=configs/webshop.py")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("jax").setLevel(logging.WARNING)  # its search for other backends
    config = _CONFIG.value.to_dict()
    method = config["method"]
    default = (
        f"runs/{config['env']['name']}-{method['name']}-x{method['rollouts']}-{config['seed']}"
    )
    print(
        pipeline.run(
            config,
            _WORKDIR.value or default,
            stages=tuple(_STAGES.value or pipeline.STAGES),
            overwrite=_OVERWRITE.value,
        )
    )


def run() -> None:
    """Run `main`; print a user's errors as one message."""
    try:
        app.run(main)
    except EefError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    run()
