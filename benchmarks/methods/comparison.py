"""Figures of finished runs, and the table that compares methods on the same tasks and seeds.

A figures file is one line of JSON for one (method, seed): the scores of the last round's policy on
each held-out task, and the method's cost.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from eef_jax import config as config_lib
from eef_jax import scores as scores_lib
from eef_jax.config import Config
from eef_jax.errors import DataError
from eef_jax.report import markdown
from eef_jax.report.results import DIFFICULTY
from eef_jax.report.run import read
from eef_jax.scores import Score
from eef_jax.storage.files import read_json, write_text
from eef_jax.storage.provenance import config_hash, json_values
from eef_jax.storage.workdir import Workdir

SCHEMA = 1
_VARIED = ("method", "seed")  # sections that differ between the runs of a comparison
SUBJECT = "eef"  # the method that all others are baselines of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Results and cost of one run.

    Attributes:
        method: name of the method's variant.
        seed: seed of the run.
        split: split that was evaluated.
        commit: commit of the code, with `+` for uncommitted changes.
        config_hash: hash of the run's config.
        setting: hash of the config without method and seed; equal in all runs of one comparison.
        rollouts: exploration episodes of all rounds.
        tokens: training tokens of all rounds, including the clone's.
        steps: training steps of all rounds, including the clone's.
        seconds: wall time of all stages, including those shared with other runs.
        only_through_failure: train tasks solved only through an expert failure; None where the
            method plays nothing.
        tasks: ids of the tasks, in the order of the split.
        tags: tags of each task.
        wins: 1 or 0 for each task; None where infrastructure ended the episode.
        rewards: final reward (0-1) for each task; None where infrastructure ended the episode.
        expert: the expert's scores on these tasks; empty for an imported one.
        schema: version of the file format.
    """

    method: str
    seed: int
    split: str
    commit: str | None
    config_hash: str
    setting: str
    rollouts: int
    tokens: int
    steps: int
    seconds: float
    only_through_failure: int | None
    tasks: Sequence[str]
    tags: Sequence[Sequence[str]]
    wins: Sequence[int | None]
    rewards: Sequence[float | None]
    expert: Mapping[str, Any]
    schema: int = SCHEMA


def collect(work: Workdir, method: str) -> Figures:
    """The figures of a finished run.

    Raises:
        DataError: the run is not finished.
    """
    run = read(work)
    if run.missing:
        raise DataError(f"{work.root} is not finished: {', '.join(run.missing)} are missing")
    played = run.attempts(f"round_{run.rounds}/evaluate")
    tune = run.total("tune", "tokens", "steps")
    counts = [run.counts(name) for name in run.manifests]
    config = run.config
    return Figures(
        method=method,
        seed=config.seed,
        split=config.evaluate.split,
        commit=run.manifests[f"round_{run.rounds}/evaluate"]["provenance"].get("commit"),
        config_hash=config_hash(config_lib.of_kind(config, "results")),
        setting=setting(config),
        rollouts=run.total("explore", "episodes")["episodes"],
        tokens=tune["tokens"],
        steps=tune["steps"],
        seconds=round(sum(count["seconds"] for count in counts), 1),
        only_through_failure=run.facts(run.rounds).get("solved_only_through_failure"),
        tasks=[t.task.id for t in played],
        tags=[list(t.task.tags) for t in played],
        wins=[int(t.win) if t.outcome.completed else None for t in played],
        rewards=[t.reward if t.outcome.completed else None for t in played],
        expert=json_values(
            {name: dataclasses.asdict(x) for name, x in run.scores("expert").items()}
        ),
    )


def setting(config: Config) -> str:
    """Hash of the results fields that the runs of one comparison share."""
    shared = config_lib.of_kind(config, "results")
    return config_hash({k: v for k, v in shared.items() if k.partition(".")[0] not in _VARIED})


def write(path: epath.PathLike, figures: Figures) -> None:
    """Write a figures file."""
    write_text(path, json.dumps(dataclasses.asdict(figures)) + "\n")


def load(path: epath.PathLike) -> Figures:
    """Read a figures file.

    Raises:
        DataError: the file is missing, damaged or of another version.
    """
    value = read_json(path, remedy="move it away and run again")
    names = {field.name for field in dataclasses.fields(Figures)}
    if set(value) != names or value["schema"] != SCHEMA:
        raise DataError(f"{path} holds no figures of version {SCHEMA}: move it away and run again")
    return Figures(**value)


def table(figures: Sequence[Figures]) -> str:
    """Results of each method, and EEF's paired difference to each baseline, as Markdown.

    Each task's values are averaged over seeds first; intervals are 95 % over tasks.

    Raises:
        DataError: the figures are of different settings, splits or tasks.
    """
    _check(figures)
    methods: dict[str, list[Figures]] = {}
    for each in sorted(figures, key=lambda f: f.seed):
        methods.setdefault(each.method, []).append(each)
    tags = [t for t in DIFFICULTY if any(t in tags for tags in figures[0].tags)]
    rows = [_expert(figures[0], tags)] if figures[0].expert else []
    rows += [_row(name, runs, tags) for name, runs in methods.items()]
    header = ["method", "seeds", "win rate", "mean reward", *(f"{tag}: win rate" for tag in tags)]
    header += ["by seed", "rollouts", "training tokens", "steps", "only through a failure"]
    lines = markdown.table(header, rows)
    if SUBJECT in methods and len(methods) > 1:
        header = [f"{SUBJECT} minus", "win rate (points)", *(f"{tag} (points)" for tag in tags)]
        subject = methods.pop(SUBJECT)
        rows = [_difference(name, subject, runs, tags) for name, runs in methods.items()]
        lines += markdown.table([*header, "mean reward"], rows)
    commits = ", ".join(sorted({each.commit or "unknown" for each in figures}))
    lines.append(
        f"{figures[0].split}, {len(figures[0].tasks)} tasks; 95 % intervals over tasks, a task's "
        f"values averaged over seeds first; setting {figures[0].setting}, commit {commits}"
    )
    return "\n".join(lines)


def _check(figures: Sequence[Figures]) -> None:
    first = figures[0]
    for each in figures[1:]:
        for name in ("setting", "split", "tasks"):
            if getattr(each, name) != getattr(first, name):
                raise DataError(
                    f"{each.method} (seed {each.seed}) differs from {first.method} (seed "
                    f"{first.seed}) in its {name}: only runs of one setting compare. Take another "
                    "--results"
                )


def _expert(figures: Figures, tags: Sequence[str]) -> list[object]:
    scores: dict[str, Score] = {k: scores_lib.score_from_json(v) for k, v in figures.expert.items()}
    rates = [markdown.win_rate(scores.get(tag)) for tag in tags]
    cells = [markdown.win_rate(scores["all"]), markdown.reward(scores["all"]), *rates]
    return ["expert", None, *cells, *[None] * 5]


def _row(name: str, runs: Sequence[Figures], tags: Sequence[str]) -> list[object]:
    wins, rewards = _averages(runs, "wins"), _averages(runs, "rewards")
    low, high = scores_lib.mean_interval(rewards)
    by_seed = " ".join(f"{_mean(_known(run.wins)) * 100:.1f}" for run in runs)
    failures = [r.only_through_failure for r in runs if r.only_through_failure is not None]
    return [
        name,
        len(runs),
        _rate(wins),
        markdown.Markup(f"{_mean(rewards):.3f} [{low:.3f}, {high:.3f}]"),
        *(_rate(_averages(runs, "wins", tag)) for tag in tags),
        markdown.Markup(by_seed),
        *(
            round(_mean([getattr(r, what) for r in runs]))
            for what in ("rollouts", "tokens", "steps")
        ),
        round(_mean(failures)) if failures else None,
    ]


def _difference(
    name: str, subject: Sequence[Figures], baseline: Sequence[Figures], tags: Sequence[str]
) -> list[object]:
    """EEF minus a baseline, over the tasks that all of their runs completed."""

    def paired(field: str, tag: str | None = None) -> tuple[float, float, float]:
        places = _places([*subject, *baseline], tag)
        return scores_lib.paired_difference(
            [[getattr(run, field)[place] for place in places] for run in subject],
            [[getattr(run, field)[place] for place in places] for run in baseline],
        )

    def points(tag: str | None) -> markdown.Markup:
        difference, low, high = (100 * value for value in paired("wins", tag))
        return markdown.Markup(f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]")

    difference, low, high = paired("rewards")
    reward = markdown.Markup(f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    return [name, points(None), *map(points, tags), reward]


def _places(runs: Sequence[Figures], tag: str | None) -> list[int]:
    """Indices of the tasks with a tag that every run completed."""
    return [
        place
        for place, tags in enumerate(runs[0].tags)
        if (tag is None or tag in tags) and all(run.wins[place] is not None for run in runs)
    ]


def _averages(runs: Sequence[Figures], field: str, tag: str | None = None) -> list[float]:
    """Each task's value, averaged over seeds."""
    columns = ([getattr(run, field)[place] for run in runs] for place in _places(runs, tag))
    return [_mean(column) for column in columns]


def _rate(wins: Sequence[float]) -> str:
    if not wins:
        return markdown.NONE
    if set(wins) <= {0.0, 1.0}:  # one seed, or all seeds equal: a binomial proportion
        return markdown.share(_mean(wins), scores_lib.wilson_interval(round(sum(wins)), len(wins)))
    return markdown.share(_mean(wins), scores_lib.mean_interval(wins))


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
