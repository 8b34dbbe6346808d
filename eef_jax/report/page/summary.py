"""The first section: the result in a sentence, all policies, and the curve over rounds."""

from collections.abc import Mapping, Sequence

from eef_jax import scores
from eef_jax.report import markdown, results
from eef_jax.report.page import figures
from eef_jax.report.page.figures import Line
from eef_jax.report.page.parts import Cell, Figure, Section, Table
from eef_jax.report.run import Run
from eef_jax.types import Attempt


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its method, and where that is not enough its seed or folder."""
    for make in (
        lambda run: run.method,
        lambda run: f"{run.method}, seed {run.config.seed}",
        lambda run: f"{run.method}, {run.work.root.name}",
        lambda run: f"{run.method}, {run.work.root}",
    ):
        names = [make(run) for run in runs]
        if len(set(names)) == len(names):
            break
    return names


def title(runs: Sequence[Run], names: Sequence[str]) -> str:
    """What the page is about."""
    config = runs[0].config
    seed = f", seed {config.seed}" if len(runs) == 1 else ""
    return f"{' / '.join(names)} on {config.env.name}{seed}"


def sentence(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The result with its interval."""
    best = _best(runs)
    if best is None:
        return "No policy has been evaluated yet."
    run = runs[best]
    last = run.last()
    score = run.scores(f"round_{last}/evaluate")[results.ALL]
    rate = markdown.win_rate(score).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{names[best]} wins {rate} of {score.episodes:,} {run.config.evaluate.split} tasks."


def details(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """What the result is compared with: the clone and the expert, or the other runs."""
    best = _best(runs)
    found = [_unfinished(run, name) for run, name in zip(runs, names, strict=True) if run.missing]
    if best is None:
        return found
    run, after = runs[best], _last_played(runs[best])
    if len(runs) == 1:
        found = [*_against_start(run, after), *_spent(run), *found]
    for number, other in enumerate(runs):
        if number != best and (before := _last_played(other)):
            found.insert(0, f"Against {names[number]}: {_difference(after, before)}.")
    return found


def policies(runs: Sequence[Run], names: Sequence[str]) -> Section:
    """The policies of all runs."""
    several = len(runs) > 1
    rows: list[Sequence[Cell]] = []
    strong = []
    tags = [t for t in results.DIFFICULTY if any(t in results.tags_of(run) for run in runs)]
    for run, name in zip(runs, names, strict=True):
        last = run.last()
        for label, stage in results.policies(run):
            if last is not None and stage == f"round_{last}/evaluate":
                strong.append(len(rows))
            rows.append([*[name] * several, *_policy(run, label, stage, tags)])
    header = ["policy", "win rate [95 %]", "mean reward [95 %]", *(f"{tag} tasks" for tag in tags)]
    header += ["rollouts", "trained tokens", "updates", "minutes"]
    return Section(
        id="results",
        title="Results",
        tables=[
            Table(
                caption="Win rate: Wilson's interval; mean reward: normal; both over tasks.",
                header=[*["run"] * several, *header],
                rows=rows,
                texts=1 + several,
                strong=strong,
            )
        ],
    )


def _policy(run: Run, label: str, stage: str, tags: Sequence[str]) -> list[Cell]:
    found = run.scores(stage)
    total = found.get(results.ALL)
    nothing = "missing" if stage in run.missing else "not played"
    cells: list[Cell] = [label, markdown.win_rate(total) if total else nothing]
    cells += [markdown.reward(total), *(markdown.win_rate(found.get(tag)) for tag in tags)]
    return [*cells, *results.cost_of(run, stage)]


def _best(runs: Sequence[Run]) -> int | None:
    """The run whose last policy wins most."""
    rates = {
        number: run.scores(f"round_{last}/evaluate")[results.ALL].win_rate
        for number, run in enumerate(runs)
        if (last := run.last()) is not None
    }
    return max(rates, key=lambda number: rates[number], default=None)


def _last_played(run: Run) -> dict[str, Attempt]:
    last = run.last()
    return {} if last is None else completed(run.attempts(f"round_{last}/evaluate"))


def completed(attempts: Sequence[Attempt]) -> dict[str, Attempt]:
    """The attempts that infrastructure did not end, by their tasks."""
    return {a.task.id: a for a in attempts if a.outcome.completed}


def _difference(after: Mapping[str, Attempt], before: Mapping[str, Attempt]) -> str:
    """The change of the win rate over the tasks of both."""
    both = [task for task in after if task in before]
    if not both:
        return "no task in common"
    wins = [[float(played[task].win) for task in both] for played in (after, before)]
    change, low, high = (100 * x for x in scores.paired_difference([wins[0]], [wins[1]]))
    return f"{change:+.1f} points [{low:+.1f}, {high:+.1f}], paired over {len(both):,} tasks"


def _against_start(run: Run, after: Mapping[str, Attempt]) -> list[str]:
    found = []
    if run.last() and (before := completed(run.attempts("round_0/evaluate"))):
        rate = markdown.win_rate(run.scores("round_0/evaluate")[results.ALL])
        found.append(f"The clone it started from wins {rate}: {_difference(after, before)}.")
    if expert := run.scores("expert").get(results.ALL):
        found.append(f"The expert wins {markdown.win_rate(expert)}.")
    facts = run.facts(run.rounds)
    if only := facts.get("solved_only_through_failure"):
        found.append(f"{only:,} train tasks were solved only through an expert's failure.")
    return found


def _spent(run: Run) -> list[str]:
    seconds = sum(run.counts(name).get("seconds", 0.0) for name in run.manifests)
    played = run.total("explore", "episodes")["episodes"]
    return [f"{played:,} rollouts, {seconds / 60:,.1f} minutes in all."]


def _unfinished(run: Run, name: str) -> str:
    return f"{name} is not finished: {len(run.missing)} stages are missing, first {run.missing[0]}."


def curve(runs: Sequence[Run], names: Sequence[str]) -> Figure:
    """Win rate over rounds: by difficulty for one run, in all for several."""
    rounds = max(run.rounds for run in runs) + 1
    places = ["clone" if rounds > 1 else "policy", *(f"round {n}" for n in range(1, rounds))]
    if len(runs) == 1:
        kinds = [results.ALL, *(t for t in results.DIFFICULTY if t in results.tags_of(runs[0]))]
        lines = [
            _line(runs[0], kind, "all tasks" if kind == results.ALL else kind) for kind in kinds
        ]
    else:
        lines = [_line(run, results.ALL, name) for run, name in zip(runs, names, strict=True)]
    if expert := runs[0].scores("expert").get(results.ALL):
        lines.append(Line(name="expert", values=[expert.win_rate] * rounds, dashed=True))
    rows = [
        [place, *(_with_interval(line, index) for line in lines)]
        for index, place in enumerate(places)
    ]
    return Figure(
        caption="Win rate over rounds on held-out tasks, with 95 % intervals.",
        svg=figures.shares({"": (places, lines)}),
        numbers=Table(caption="", header=["policy", *(line.name for line in lines)], rows=rows),
    )


def _line(run: Run, kind: str, name: str) -> Line:
    found = [run.scores(f"round_{n}/evaluate").get(kind) for n in range(run.rounds + 1)]
    return Line(
        name=name,
        values=[score.win_rate if score else None for score in found],
        intervals=[score.win_interval if score else None for score in found],
    )


def _with_interval(line: Line, index: int) -> str:
    value = line.values[index] if index < len(line.values) else None
    return markdown.share(value, line.intervals[index] if index < len(line.intervals) else None)
