"""`report.html`: one self-contained page of one or several runs, with a viewer of trajectories.

Data first: `summary` and `sections` make plain values (`parts`) of a run's files, `attempts`
packs its trajectories, `figures` draws;
`render` makes HTML of it all with the template, style and script in `static/`.
"""

from collections.abc import Sequence

from etils import epath

from eef_jax.report import warnings
from eef_jax.report.page import attempts, render, sections, summary
from eef_jax.report.page.parts import Page, Part
from eef_jax.report.run import Run
from eef_jax.storage.files import write_text

FILE = "report.html"


def write(runs: Sequence[Run], path: epath.PathLike, *, most: int = attempts.MOST) -> None:
    """Write the page of some runs.

    Args:
        runs: one run, or several to compare.
        path: the file, local or in an object store.
        most: trajectories that are neither an expert's nor selected; of more a sample is shown.

    Raises:
        DataError: a file of a finished stage is missing or damaged.
    """
    names = summary.labels(runs)
    viewer = attempts.pack(runs, names, most=most)
    page = Page(
        title=summary.title(runs, names),
        sentence=summary.sentence(runs, names),
        details=summary.details(runs, names),
        curve=summary.curve(runs, names),
        results=summary.policies(runs, names),
        parts=[
            Part(
                label=name,
                warnings=warnings.warnings(run),
                sections=sections.of_run(run, number),
            )
            for number, (run, name) in enumerate(zip(runs, names, strict=True))
        ],
        shown=viewer.shown,
    )
    write_text(path, render.html(page, viewer))
