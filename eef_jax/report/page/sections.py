"""The sections of one run: where wins came from, what was learned, what it cost, what it was."""

import json
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax import config as config_lib
from eef_jax import scores
from eef_jax.methods import _forks
from eef_jax.report import accounting, markdown, results
from eef_jax.report.exploration import is_rollout
from eef_jax.report.judged import through_failure
from eef_jax.report.page import figures
from eef_jax.report.page.figures import Line
from eef_jax.report.page.parts import Cell, Figure, Link, Section, Table
from eef_jax.report.page.summary import completed
from eef_jax.report.run import Run
from eef_jax.storage.metrics import read_metrics
from eef_jax.types import Attempt, Outcome

CASES = 10  # rows of a table of tasks; the viewer has all of them
_KINDS = ("expert", "explore", "select", "tune", "evaluate")


def rollout_yield(run: Run, number: int) -> Section:
    """Win share of the rollouts by the expert state they start from, and by difficulty."""
    panels, rows = {}, []
    for each in range(1, run.rounds + 1):
        counts = _yields(run, each)
        if not counts:
            continue
        states = sorted({state for _, state in counts})
        tags = list(dict.fromkeys(tag for tag, _ in counts))
        lines = [_yield_line(counts, tag, states) for tag in tags]
        panels[f"round {each}"] = ([f"s{_subscript(k)}" for k in states], lines)
        rows += [
            _yield_row(each, tag, k, counts[tag, k])
            for tag in tags
            for k in states
            if (tag, k) in counts
        ]
    if not panels:
        return Section(
            id=f"yield-{number}", title="Wins by expert state", notes=["No rollouts were played."]
        )
    header = ["round", "tasks", "from", "played", "completed", "won", "win share of completed"]
    figure = Figure(
        caption="Share of completed rollouts that won, by the state they started from: "
        "s₀ is the task's start, the later ones are states of a failed expert attempt.",
        svg=figures.shares(panels),
        numbers=Table(caption="", header=header, rows=rows, texts=3),
    )
    note = (
        "A share that rises along the states says that the expert's failed attempts hold a good "
        "beginning. Not every task has expert states: compare within one difficulty."
    )
    return Section(
        id=f"yield-{number}", title="Wins by expert state", notes=[note], figures=[figure]
    )


def funnel(run: Run, number: int) -> Section:
    """Tasks, trajectories by outcome, what was solved and selected, and tokens."""
    stages = [s for s in run.manifests if s == "expert" or s.endswith("/explore")]
    outcomes = {stage: run.counts(stage)["outcomes"] for stage in stages}
    names = [o.value for o in Outcome if any(counts.get(o) for counts in outcomes.values())]
    places = [_stage_label(stage) for stage in stages]
    parts = {
        name.replace("_", " "): [float(outcomes[s].get(name, 0)) for s in stages] for name in names
    }
    drawn = []
    if stages:
        numbers = Table(
            caption="",
            header=["trajectories", *(name.replace("_", " ") for name in names), "in all"],
            rows=[
                [place, *(outcomes[s].get(n, 0) for n in names), sum(outcomes[s].values())]
                for place, s in zip(places, stages, strict=True)
            ],
        )
        drawn = [
            Figure(
                caption="Train trajectories by outcome.",
                svg=figures.bars(places, parts, "trajectories"),
                numbers=numbers,
            )
        ]
    return Section(
        id=f"funnel-{number}",
        title="From tasks to training tokens",
        figures=drawn,
        tables=[_solved(run)],
        folded=[_reasons(run)],
    )


def only_through_failure(run: Run, number: int) -> Section:
    """Train tasks that no expert and no rollout from the start has won, but EEF has."""
    tasks = through_failure(run)
    experts = {a.task.id: a for a in run.attempts("expert")}
    rows = [_case(experts[task], number, "expert") for task in sorted(tasks) if task in experts]
    title, name = "Solved only through an expert's failure", f"through-{number}"
    if not rows:
        note = "No train task was won from a state of an expert's failure alone."
        return Section(id=name, title=title, notes=[note])
    note = (
        f"{len(rows):,} train tasks, which neither the expert nor a rollout from the task's start "
        "has won: they are learned from the useful part of a failed attempt."
    )
    header = ["task", "goal", "tags", "reward"]
    caption = _first(rows, "Each leads to the expert's attempt and its chain of states")
    return Section(
        id=name,
        title=title,
        notes=[note],
        tables=[Table(caption=caption, header=header, rows=rows[:CASES], texts=3)],
        links=[Link(text="All of them in the viewer", target=_only(number))],
    )


def worse(run: Run, number: int) -> Section:
    """Held-out tasks that the clone won and the last policy lost."""
    last, title = run.last(), "What got worse"
    if not last or "round_0/evaluate" in run.missing:
        note = "There are no two evaluated policies to compare."
        return Section(id=f"worse-{number}", title=title, notes=[note])
    before = completed(run.attempts("round_0/evaluate"))
    after = completed(run.attempts(f"round_{last}/evaluate"))
    both = [task for task in before if task in after]
    lost = [task for task in both if before[task].win and not after[task].win]
    gained = [task for task in both if after[task].win and not before[task].win]
    note = (
        f"Of {len(both):,} held-out tasks {len(gained):,} were gained and {len(lost):,} lost from "
        f"the clone to round {last}."
    )
    rows = [_lost(before[task], after[task], number, last) for task in lost]
    header = ["task", "goal", "tags", "ended as", "reward"]
    caption = _first(rows, "Each leads to both attempts side by side")
    tables = [Table(caption=caption, header=header, rows=rows[:CASES], texts=4)] if rows else []
    return Section(id=f"worse-{number}", title=title, notes=[note], tables=tables)


def costs(run: Run, number: int) -> Section:
    """Seconds and tokens of every stage."""
    places = ["expert", *(run.label(n) for n in range(run.rounds + 1))]
    seconds = {kind: [_seconds(run, n, kind) for n in range(-1, run.rounds + 1)] for kind in _KINDS}
    rows: list[list[Cell]] = [
        [place, *(seconds[kind][i] for kind in _KINDS), sum(seconds[kind][i] for kind in _KINDS)]
        for i, place in enumerate(places)
    ]
    rows.append(
        ["in all", *(sum(seconds[kind]) for kind in _KINDS), sum(map(sum, seconds.values()))]
    )
    figure = Figure(
        caption="Wall time by stage.",
        svg=figures.bars(places, seconds, "seconds"),
        numbers=Table(caption="", header=["seconds", *_KINDS, "in all"], rows=rows),
    )
    return Section(
        id=f"costs-{number}",
        title="Costs",
        figures=[figure],
        tables=[_training(run)],
        folded=[_played(run)],
    )


def training(run: Run, number: int) -> Section:
    """The loss over the updates of each round."""
    lines, rows = {}, []
    for each in range(run.rounds + 1):
        stage = run.work.stage(f"round_{each}/tune")
        logged = read_metrics(stage.folder / "metrics.jsonl") if stage.name in run.manifests else []
        points = [
            (row["step"], row["loss"]) for row in logged if isinstance(row.get("loss"), float)
        ]
        if points:
            steps, losses = zip(*points, strict=True)
            lines[run.label(each)] = (steps, losses)
            rows.append(
                [run.label(each), len(points), *(f"{x:.4f}" for x in (losses[0], losses[-1]))]
            )
    title = "Training curves"
    if not lines:
        return Section(id=f"training-{number}", title=title, notes=["No training was logged."])
    figure = Figure(
        caption="Loss in nats per learned token over the updates of each round.",
        svg=figures.curves(lines, "update", "loss"),
        numbers=Table(
            caption="", header=["policy", "updates", "first loss", "last loss"], rows=rows
        ),
    )
    return Section(id=f"training-{number}", title=title, figures=[figure])


def provenance(run: Run, number: int) -> Section:
    """Who made the run, with which config, and whether nothing was lost on the way."""
    makers = {
        json.dumps(m["provenance"], sort_keys=True): m["provenance"] for m in run.manifests.values()
    }
    rows = []
    for maker in makers.values():
        versions = ", ".join(f"{name} {v}" for name, v in maker.get("versions", {}).items())
        rows.append(
            [
                str(maker.get("commit")),
                str(maker.get("config_hash")),
                str(maker.get("seed")),
                versions,
            ]
        )
    made = Table(
        caption="Who made the stages.",
        header=["commit", "config", "seed", "versions"],
        rows=rows,
        texts=4,
    )
    fields = [[name, value] for name, value in _flat(config_lib.plain(run.config))]
    config = Table(caption="Config", header=["field", "value"], rows=fields, texts=2)
    checks = Table(
        caption="Conservation checks: what came into each stage equals what went out",
        header=accounting.HEADER,
        rows=[[*row, "yes" if fine else "NO"] for *row, fine in accounting.rows(run)],
        texts=4,
    )
    return Section(
        id=f"provenance-{number}",
        title="Config and provenance",
        tables=[made],
        folded=[config, checks],
    )


def of_run(run: Run, number: int) -> list[Section]:
    """All sections of a run.

    Args:
        run: the run.
        number: its place among the runs of the page, from 0.
    """
    made = (rollout_yield, funnel, only_through_failure, worse, costs, training, provenance)
    return [section(run, number) for section in made]


def _yields(run: Run, number: int) -> dict[tuple[str, int], Counter[str]]:
    """Rollouts that were played, completed and won, by difficulty and number of the state."""
    states = getattr(run.config.method.options, "states", None)
    lengths = {a.id: a.length for a in run.attempts("expert")}
    found: dict[tuple[str, int], Counter[str]] = {}
    for rollout in run.attempts(f"round_{number}/explore"):
        k = rollout.fork_step
        if states is not None and rollout.parent in lengths:
            k //= _forks.skip_length(lengths[rollout.parent], states)
        tag = next((t for t in results.DIFFICULTY if t in rollout.task.tags), results.ALL)
        row = found.setdefault((tag, k), Counter(played=0, completed=0, wins=0))
        row.update(played=1, completed=rollout.outcome.completed, wins=rollout.win)
    return dict(sorted(found.items()))


def _yield_line(
    counts: Mapping[tuple[str, int], Counter[str]], tag: str, states: Sequence[int]
) -> Line:
    rows = [counts.get((tag, k)) for k in states]
    known = [row if row and row["completed"] else None for row in rows]
    return Line(
        name=tag,
        values=[row["wins"] / row["completed"] if row else None for row in known],
        intervals=[
            scores.wilson_interval(row["wins"], row["completed"]) if row else None for row in known
        ],
    )


def _yield_row(number: int, tag: str, k: int, row: Counter[str]) -> list[Cell]:
    wins, count = row["wins"], row["completed"]
    share = markdown.share(wins / count, scores.wilson_interval(wins, count)) if count else None
    return [f"{number}", tag, f"s{_subscript(k)}", row["played"], count, wins, share]


def _subscript(number: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))


def _stage_label(stage: str) -> str:
    return stage.removesuffix("/explore").replace("_", " ")


def _solved(run: Run) -> Table:
    rows: list[list[Cell]] = []
    for number in range(run.rounds + 1):
        if f"round_{number}/select" in run.missing:
            continue
        facts, counts = run.facts(number), run.counts(f"round_{number}/select")
        selections = run.selections(number)
        played = run.counts(f"round_{number}/explore")
        rows.append(
            [
                run.label(number),
                facts.get("tasks", run.counts("expert").get("episodes")),
                played.get("episodes"),
                played.get("outcomes", {}).get(Outcome.WON) if played else None,
                facts.get("solved", len({s["task"] for s in selections})),
                facts.get("solved_only_through_failure"),
                counts["selections"],
                len({s["trajectory"] for s in selections if is_rollout(s)}),
                counts["tokens"],
                counts["weighted_tokens"],
            ]
        )
    header = ["policy", "train tasks", "rollouts", "won", "tasks solved", "only through a failure"]
    header += ["selected", "of them rollouts", "tokens", "learned tokens"]
    return Table(caption="What each policy was tuned on.", header=header, rows=rows)


def _reasons(run: Run) -> Table:
    rounds = [n for n in range(run.rounds + 1) if f"round_{n}/select" in run.manifests]
    found = {n: Counter(x["reason"] for s in run.selections(n) for x in s["steps"]) for n in rounds}
    names = sorted({name for counter in found.values() for name in counter})
    return Table(
        caption="Selected steps by reason",
        header=["reason", *(run.label(n) for n in rounds)],
        rows=[[name, *(found[n][name] for n in rounds)] for name in names],
    )


def _only(run: int) -> str:
    """Where the viewer lists the expert's attempts at these tasks."""
    return f"view=list&f_through=1&f_kind=expert&f_run={run}"


def _case(attempt: Attempt, run: int, stage: str) -> list[Cell]:
    link = Link(text=attempt.task.id, target=target(run, stage, attempt.id))
    return [link, attempt.task.goal, ", ".join(attempt.task.tags), round(attempt.reward, 3)]


def _lost(before: Attempt, after: Attempt, run: int, last: int) -> list[Cell]:
    task, stage = after.task, f"round_{last}/evaluate"
    where = target(run, "round_0/evaluate", before.id)
    beside = target(run, stage, after.id, prefix="with_")
    link = Link(text=task.id, target=f"{where}&{beside}")
    return [link, task.goal, ", ".join(task.tags), after.outcome.value, round(after.reward, 3)]


def _first(rows: Sequence[Any], text: str) -> str:
    return f"{text}." if len(rows) <= CASES else f"{text}; the first {CASES} of {len(rows):,}."


def _seconds(run: Run, number: int, kind: str) -> float:
    stage = "expert" if number < 0 else f"round_{number}/{kind}"
    if (number < 0) != (kind == "expert"):
        return 0.0
    return float(run.counts(stage).get("seconds", 0.0))


def _training(run: Run) -> Table:
    names = ("examples", "tokens", "weighted_tokens", "steps", "seconds")
    rows: list[list[Cell]] = []
    for number in range(run.rounds + 1):
        tune = run.counts(f"round_{number}/tune")
        played = run.counts(f"round_{number}/explore").get("episodes", 0)
        padding = markdown.share(tune.get("padding"))
        rows.append([run.label(number), played, *(tune.get(name) for name in names), padding])
    header = ["policy", "rollouts", "examples", "tokens", "learned tokens", "updates", "seconds"]
    return Table(caption="Training of each policy.", header=[*header, "padding"], rows=rows)


def _played(run: Run) -> Table:
    rows: list[list[Cell]] = []
    for number in range(run.rounds + 1):
        for kind in ("explore", "evaluate"):
            counts = run.counts(f"round_{number}/{kind}")
            if "tokens" in counts:
                cells = [counts["tokens"].get(name) for name in results.TOKENS]
                rows.append([run.label(number), kind, counts["episodes"], counts["turns"], *cells])
    header = ["policy", "stage", "episodes", "turns", *(f"tokens {n}" for n in results.TOKENS)]
    return Table(caption="Tokens that the engine processed", header=header, rows=rows, texts=2)


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{name}.")
        else:
            found.append((f"{before}{name}", json.dumps(value, ensure_ascii=False)))
    return found


def target(run: int, stage: str, attempt: str, *, prefix: str = "") -> str:
    """Where the page's viewer shows an attempt, as the address's part after `#`."""
    values = {f"{prefix}run": run, f"{prefix}stage": stage, f"{prefix}id": attempt}
    return urllib.parse.urlencode(values, errors="replace")
