"""The report of a run: reads its work folder and writes `report.md`, `report.html` and a table.

Loads no JAX and needs no accelerator. Unfinished stages are named as missing. `run` reads the
files; `results`, `exploration`, `accounting`, `actions` and `examples` are the sections, `warnings`
what comes before them; `markdown` formats text; `page` makes `report.html`, of one or several runs.
`judged` and `chains` (an expert's attempt as the paper's Figure 1) say what rounds make of them,
`tokens` what is trained on: for the page's viewer and the terminal's (`eef_jax.view`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from eef_jax.report import (
    accounting,
    actions,
    examples,
    exploration,
    markdown,
    page,
    results,
    warnings,
)
from eef_jax.report.run import Run, read
from eef_jax.storage.files import write_text
from eef_jax.storage.workdir import Workdir

FILE = "report.md"

_SECTIONS = (
    ("Results", results.results),
    ("Cost", results.cost),
    ("Rollout yield by expert state", exploration.rollout_yield),
    ("Train tasks solved", exploration.solved),
    ("What was selected", exploration.selected),
    ("Kinds of action", actions.actions),
    ("Conservation checks", accounting.conservation_checks),
    ("Worked cases", examples.worked),
    ("What got worse", examples.worse),
    ("Tokens played", results.played_tokens),
    ("Time", results.times),
)


def write(work: Workdir) -> None:
    """Write `<workdir>/report.md` and `<workdir>/report.html`.

    Raises:
        DataError: a file of a finished stage is missing or damaged.
    """
    run = read(work)
    write_text(work.root / FILE, _markdown(run))
    page.write([run], work.root / page.FILE)


def compare(works: Sequence[Workdir], path: epath.PathLike) -> None:
    """Write a page that compares several runs.

    Raises:
        DataError: a file of a finished stage is missing or damaged.
    """
    page.write([read(work) for work in works], path)


def _markdown(run: Run) -> str:
    lines = [f"# {markdown.text(_title(run))}", "", *_unfinished(run)]
    if found := warnings.warnings(run):
        lines += ["## Warnings", "", *(f"- {markdown.text(line)}" for line in found), ""]
    for title, section in _SECTIONS:
        lines += [f"## {title}", "", *section(run)]
    lines += ["## Provenance", "", *_provenance(run)]
    return "\n".join(lines).rstrip() + "\n"


def table(work: Workdir) -> str:
    """The results in aligned columns for a terminal, and the path of the full report.

    Raises:
        DataError: a file of a finished stage is missing or damaged.
    """
    run = read(work)
    lines = [_title(run), "", *markdown.columns(*results.terminal(run)), ""]
    if run.missing:
        lines += [f"not finished: {len(run.missing)} stages, the first is {run.missing[0]}", ""]
    for warning in warnings.warnings(run):
        lines += markdown.wrapped(f"warning: {warning}", indent=len("warning: "))
    facts = run.facts(run.rounds)
    if "solved_only_through_failure" in facts:
        count = facts["solved_only_through_failure"]
        lines.append(f"train tasks solved only through an expert failure: {count}")
    written = (work.root / name for name in (page.FILE, FILE))
    lines += [f"report: {path}" for path in written if path.exists()]
    return "\n".join(lines)


def _title(run: Run) -> str:
    config = run.config
    return f"{run.method} on {config.env.name}, seed {config.seed}, {config.evaluate.split} tasks"


def _unfinished(run: Run) -> list[str]:
    if not run.missing:
        return []
    return [f"Not finished. Missing stages: {', '.join(run.missing)}.", ""]


def _provenance(run: Run) -> list[str]:
    """Who made the stages; one line each for makers that differ."""
    makers: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for name, manifest in run.manifests.items():
        maker = manifest["provenance"]
        makers.setdefault(repr(sorted(maker.items(), key=str)), (maker, []))[1].append(name)
    lines = []
    for maker, names in makers.values():
        versions = ", ".join(f"{k} {v}" for k, v in maker.get("versions", {}).items())
        base = f", base {maker['base']}" if maker.get("base") else ""
        told = (
            f"{_names(names)}: commit {maker.get('commit')}, config {maker.get('config_hash')}, "
            f"seed {maker.get('seed')}{base}; {versions}"
        )
        lines.append(f"- {markdown.text(told)}")
    return lines or ["- nothing was made yet"]


def _names(names: list[str]) -> str:
    return (
        ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names)} stages)"
    )
