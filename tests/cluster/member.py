"""A process of a run that waits for the others: `python -m tests.cluster.member --wait=...`."""

import time

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from eef_jax import cli
from eef_jax.cluster import distributed

_WAIT = flags.DEFINE_enum("wait", "collective", ("collective", "sleep"), "What it does.")
distributed.define_flags()


def main() -> None:
    """Join the run, say so, and go on until something ends it."""
    with distributed.from_flags():
        multihost_utils.process_allgather(np.zeros(1))
        print("together", flush=True)
        while True:
            if _WAIT.value == "sleep":
                time.sleep(0.1)
            else:
                jax.block_until_ready(multihost_utils.process_allgather(np.zeros(1)))


if __name__ == "__main__":
    cli.run(main, interrupted="start it again")
