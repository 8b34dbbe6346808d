"""Compile a run's programs ahead of time for a TPU slice, no TPU attached.

`python -m eef_jax.compile --config=webshop:llama3_8b --topology=v5e:4x4` needs a CPU and
the extra `tpu-aot`, but no weights: the fields of a config.json are enough. It prints each
program's memory, FLOPs, HBM traffic and collectives per chip, the bounds of its time, and its MFU.
A program that does not fit, or a run whose programs do not fit together, is an error that says why
and what helps; exit code 1.
"""

import os

from absl import flags

from eef_jax import cli
from eef_jax.errors import ConfigError
from eef_jax.untrusted import show


def main() -> None:
    """Read the flags, compile, print."""
    # Compiling needs no accelerator, and one that is attached may be in use.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from eef_jax.analysis import plan, table

    values = flags.FLAGS
    wanted = tuple(values.programs)
    unknown = [name for name in wanted if name not in plan.PROGRAMS]
    if unknown or not wanted:
        raise ConfigError(f"--programs has {unknown}: expected some of {', '.join(plan.PROGRAMS)}")
    if not values.topology:
        raise ConfigError("--topology is empty: name a slice, such as --topology=v5e:4x4")
    config = cli.read_config()
    assert config is not None, "the flag is required"
    compiled = plan.plan(config, values.topology, wanted=wanted, loss_fraction=values.loss_fraction)
    show("\n".join(table.format_plan(compiled)))
    if compiled.peak_bytes > compiled.chip.hbm_bytes:
        raise ConfigError(
            "each program fits a chip, but not together with what else a run holds there (the line "
            "above): take a lower config.engine.max_num_seqs or num_pages, "
            "config.model.quantization='int8', a larger config.mesh.fsdp, or "
            "config.train.remat='offload'"
        )


def run() -> None:
    """Run the command."""
    cli.define_config()
    flags.DEFINE_string("topology", "", "TPU slice, such as v5e:4x4.")
    flags.DEFINE_list("programs", "train,prefill,decode", "What to compile.")
    flags.DEFINE_float(
        "loss_fraction",
        1.0,
        "Largest share of a row's tokens that have a loss weight.",
        lower_bound=0.0,
    )
    flags.mark_flag_as_required("config")
    cli.run(main)


if __name__ == "__main__":
    run()
