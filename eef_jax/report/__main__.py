"""Write a run's report and print its table: `python -m eef_jax.report --workdir=runs/demo`."""

from absl import flags

from eef_jax import cli, report
from eef_jax.errors import ConfigError
from eef_jax.storage.workdir import read_workdir


def main() -> None:
    """Report the run that the flag names, finished or not."""
    if not flags.FLAGS.workdir:
        raise ConfigError("no --workdir was given; the demo's is --workdir=runs/demo")
    work = read_workdir(flags.FLAGS.workdir)
    report.write(work)
    print(report.table(work))


def run() -> None:
    """Run the command."""
    cli.define_path("workdir", None, "Folder of the run.")
    cli.run(main)


if __name__ == "__main__":
    run()
