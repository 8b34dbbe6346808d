"""Scores and cost of the expert, the clone and each round's policy."""

from collections.abc import Sequence

from eef_jax.report import markdown
from eef_jax.report.run import Run

ALL = "all"
# Tags with which an environment may divide its tasks; shown next to the total, other tags below.
DIFFICULTY = ("easy", "hard")
_NAME_CHARS = 20  # of a policy's name in a terminal
TOKENS = ("prefilled", "reused", "generated")  # what the engine counts


def policies(run: Run) -> list[tuple[str, str]]:
    """Name of each policy and the stage that scored it."""
    rounds = range(run.rounds + 1)
    return [("expert", "expert"), *((run.label(i), f"round_{i}/evaluate") for i in rounds)]


def summary(run: Run) -> tuple[list[str], list[list[object]]]:
    """Header and rows of the short table: results and cost of every policy."""
    tags = [tag for tag in DIFFICULTY if tag in tags_of(run)]
    header = ["policy", "win rate", "mean reward", *(f"{tag}: win rate" for tag in tags)]
    header += ["rollouts", "training tokens", "steps", "minutes"]
    rows: list[list[object]] = []
    for name, stage in policies(run):
        scores = run.scores(stage)
        missing = "missing" if stage in run.missing else "not played"
        row: list[object] = [name]
        row += (
            [markdown.win_rate(scores[ALL]), markdown.reward(scores[ALL])]
            if scores
            else [missing] * 2
        )
        row += [markdown.win_rate(scores.get(tag)) for tag in tags]
        rows.append([*row, *cost_of(run, stage)])
    return header, rows


def terminal(run: Run) -> tuple[list[str], list[list[object]]]:
    """Header and rows of the short table, in at most 100 columns: one interval, and no steps."""
    tags = [tag for tag in DIFFICULTY if tag in tags_of(run)]
    header = ["policy", "win rate [95 %]", "reward", *tags, "rollouts", "tokens", "minutes"]
    rows: list[list[object]] = []
    for name, stage in policies(run):
        scores = run.scores(stage)
        missing = "missing" if stage in run.missing else "not played"
        total = scores.get(ALL)
        cells = [
            markdown.win_rate(total) if scores else missing,
            markdown.mean(total),
            *(markdown.share(scores[tag].win_rate) if tag in scores else None for tag in tags),
        ]
        rollouts, tokens, _, minutes = cost_of(run, stage)
        rows.append(
            [
                markdown.shortened(name, _NAME_CHARS),
                *cells,
                rollouts,
                markdown.compact(tokens),
                minutes,
            ]
        )
    return header, rows


def results(run: Run) -> list[str]:
    """The short table, then the scores for each tag."""
    lines = ["Each number has its 95 % interval over tasks (win rate: Wilson, reward: normal).", ""]
    lines += markdown.table(*summary(run))
    lines += conventions(run)
    tags = tags_of(run)
    if not tags:
        return lines
    rows: list[list[object]] = []
    for tag in sorted(tags, key=lambda tag: (tag not in DIFFICULTY, tag)):
        for name, stage in policies(run):
            score = run.scores(stage).get(tag)
            if score:
                left_out = f" ({score.left_out} left out)" if score.left_out else ""
                row = [
                    markdown.win_rate(score),
                    markdown.reward(score),
                    f"{score.episodes}{left_out}",
                ]
                rows.append([tag, name, *row])
    return lines + markdown.table(
        ["tag", "policy", "win rate", "mean reward", "episodes"], rows, texts=2
    )


def conventions(run: Run) -> list[str]:
    """Mean rewards in each convention that the environment names; nothing where it names none."""
    found = {name: run.scores(stage).get(ALL) for name, stage in policies(run)}
    names = sorted({n for score in found.values() if score for n in score.rewards})
    if not names:
        return []
    rows = [
        [name, *(f"{score.rewards[n]:.3f}" if n in score.rewards else None for n in names)]
        for name, score in found.items()
        if score
    ]
    return markdown.table(["mean reward by convention", *names], rows)


def cost(run: Run) -> list[str]:
    """Training data and training cost of each round."""
    names = ("examples", "tokens", "weighted_tokens", "steps", "seconds")
    rows: list[list[object]] = []
    for number in range(run.rounds + 1):
        tune = run.counts(f"round_{number}/tune")
        played = run.counts(f"round_{number}/explore").get("episodes", 0)
        loss = tune.get("loss")
        rows.append(
            [
                run.label(number),
                played,
                *(tune.get(name) for name in names),
                markdown.share(tune.get("padding")),
                None if loss is None else f"{loss:.4f}",
            ]
        )
    totals = run.total("tune", *names)
    played = run.total("explore", "episodes")["episodes"]
    rows.append(["in all", played, *(totals[name] for name in names), None, None])
    header = ["policy", "rollouts", "examples", "tokens", "learned tokens", "steps", "seconds"]
    return markdown.table([*header, "padding", "loss"], rows)


def played_tokens(run: Run) -> list[str]:
    """Tokens that the engine processed during exploration and evaluation."""
    rows: list[list[object]] = []
    for number in range(run.rounds + 1):
        for kind in ("explore", "evaluate"):
            counts = run.counts(f"round_{number}/{kind}")
            if "tokens" in counts:
                cells = [counts["tokens"].get(name) for name in TOKENS]
                rows.append([run.label(number), kind, counts["episodes"], counts["turns"], *cells])
    if not rows:
        return ["Nothing was sampled yet.", ""]
    header = ["policy", "stage", "episodes", "turns", *(f"tokens {name}" for name in TOKENS)]
    return markdown.table(header, rows, texts=2)


def times(run: Run) -> list[str]:
    """Wall-clock seconds of every stage."""
    kinds = ("explore", "select", "tune", "evaluate")
    seconds = {name: run.counts(name).get("seconds") for name in run.manifests}
    rows: list[list[object]] = [["expert", *[None] * len(kinds), seconds.get("expert")]]
    for number in range(run.rounds + 1):
        cells = [seconds.get(f"round_{number}/{kind}") for kind in kinds]
        rows.append([run.label(number), *cells, _sum(cells)])
    rows.append(["in all", *[None] * len(kinds), _sum(list(seconds.values()))])
    return markdown.table(["seconds", *kinds, "sum"], rows)


def tags_of(run: Run) -> set[str]:
    """All tags that some policy was scored by."""
    return {tag for _, stage in policies(run) for tag in run.scores(stage)} - {ALL}


def cost_of(run: Run, stage: str) -> list[object]:
    """Rollouts, training tokens, steps and minutes of a policy's own round."""
    folder = stage.rpartition("/")[0]
    names = ["expert"] if not folder else [n for n in run.manifests if n.startswith(f"{folder}/")]
    tune = run.counts(f"{folder}/tune") if folder else {}
    seconds = _sum([run.counts(name).get("seconds") for name in names])
    return [
        run.counts(f"{folder}/explore").get("episodes") if folder else None,
        tune.get("tokens"),
        tune.get("steps"),
        None if seconds is None else seconds / 60,
    ]


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
