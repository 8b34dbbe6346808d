"""Write a run's report and print its table: `python -m eef_jax.report --workdir=runs/demo`.

Several work folders give a page that compares their runs:
`python -m eef_jax.report --workdir=runs/eef --workdir=runs/rft --out=comparison.html`.
"""

from absl import flags

from eef_jax import cli, report
from eef_jax.errors import ConfigError
from eef_jax.storage import files
from eef_jax.storage.workdir import read_workdir
from eef_jax.untrusted import show


def main() -> None:
    """Report the runs that the flags name, finished or not."""
    paths = flags.FLAGS.workdir or []
    if not paths:
        raise ConfigError("no --workdir was given; the demo's is --workdir=runs/demo")
    works = [read_workdir(path) for path in paths]
    for work in works:
        report.write(work)
        show(report.table(work))
    if flags.FLAGS.out or len(works) > 1:
        out = files.to_path(flags.FLAGS.out or "comparison.html")
        report.compare(works, out)
        show(f"report: {out}")


def run() -> None:
    """Run the command."""
    cli.define_path(
        "workdir", None, "Folder of the run; given again, a run to compare.", multi=True
    )
    cli.define_path(
        "out", None, "File of the page of all work folders; of several by default comparison.html."
    )
    cli.run(main)


if __name__ == "__main__":
    run()
