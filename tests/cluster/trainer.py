"""A training run of several processes, for tests: `python -m tests.cluster.trainer FLAGS`."""

import ctypes
import sys
import time

import numpy as np
from absl import flags
from etils import epath

from eef_jax import cli
from eef_jax.cluster import distributed
from eef_jax.sharding import make_mesh, process_rows
from eef_jax.storage.metrics import MetricsWriter
from eef_jax.train import checkpoint, step
from eef_jax.train.loop import fit
from eef_jax.train.saves import Saves
from tests.train import toy

_FOLDER = flags.DEFINE_string("folder", None, "Of the run.")
_STEPS = flags.DEFINE_integer("steps", 20, "Updates.")
_PAUSE = flags.DEFINE_float("pause", 0.0, "Seconds after each update.")
_COMPILING = flags.DEFINE_string("compiling", None, "Compile for ever, and make this file first.")
distributed.define_flags()


def compile_for_ever(*_):
    """A step whose compilation does not return to Python, whatever signal arrives."""
    epath.Path(_COMPILING.value).touch()
    libc, unlocked = (
        ctypes.CDLL(None),
        ctypes.create_string_buffer(64),
    )  # a pthread_mutex_t of zeros
    libc.pthread_mutex_lock(unlocked)
    libc.pthread_mutex_lock(unlocked)


def main():
    """Train on all devices of all processes; the lead writes the parameters."""
    folder = epath.Path(_FOLDER.value)
    if _COMPILING.value:
        step.make_step = lambda *_, **__: compile_for_ever
    with distributed.from_flags() as hosts:
        mesh = make_mesh({"data": -1})
        with (
            MetricsWriter(folder / "metrics.jsonl" if hosts.is_lead else None) as metrics,
            Saves(
                folder / "training",
                checkpoint.Metadata(base="toy", base_hash="0"),
                every_steps=3,
                metrics=metrics,
                hosts=hosts,
            ) as saves,
        ):

            def log(step, scalars):
                metrics.log(step, scalars)
                time.sleep(_PAUSE.value)

            parameters, _ = fit(
                toy.model(),
                toy.batches(batch_size=4, process_rows=process_rows(mesh, 4)),
                mesh=mesh,
                optimizer=toy.OPTIMIZER,
                steps=_STEPS.value,
                progress=False,
                log=log,
                saves=saves,
            )
        if hosts.is_lead:
            leaves = {name: np.asarray(x) for name, x in checkpoint.named(parameters).items()}
            np.savez(folder / "parameters.npz", **leaves)


if __name__ == "__main__":
    sys.exit(cli.run(main, interrupted="start it again"))
