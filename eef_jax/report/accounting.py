"""Conservation checks: what came into each stage equals what went out.

Compares counts of the stages' manifests.
"""

from collections.abc import Mapping
from typing import Any

from eef_jax.report import markdown
from eef_jax.report.run import Run

HEADER = ("stage", "in", "out", "conserved")


def conservation_checks(run: Run) -> list[str]:
    """One row for each finished stage: input, output, and whether they agree."""
    found = [[*row, "yes" if fine else markdown.Markup("**NO**")] for *row, fine in rows(run)]
    return markdown.table(HEADER, found, texts=4)


def rows(run: Run) -> list[tuple[str, str, str, bool]]:
    """For each finished stage its name, input and output, and whether they agree."""
    return [_row(run, name) for name in run.manifests]


def _row(run: Run, name: str) -> tuple[str, str, str, bool]:
    kind = name.rpartition("/")[2]
    counts = run.counts(name)
    if kind == "select":
        into, out, fine = _select(counts)
    elif kind == "tune":
        into, out, fine = _tune(counts, run.counts(name.replace("tune", "select")))
    else:
        into, out, fine = _played(counts)
    return name, into, out, fine


def _played(counts: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Each episode that was requested has exactly one outcome."""
    outcomes = counts["outcomes"]
    out = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
    into = f"{counts['episodes']:,} episodes"
    return into, f"{out}; {counts['turns']:,} turns", sum(outcomes.values()) == counts["episodes"]


def _select(counts: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Each selection becomes an example or is left out; each step is learned or masked."""
    left_out = {"unweighted": counts["unweighted"], "too long": counts["too_long"]}
    masked = counts["steps"] - counts["weighted_steps"]
    out = (
        f"{counts['examples']:,} examples"
        + "".join(f", {count:,} {why}" for why, count in left_out.items() if count)
        + "".join(f"; {n:,} chats mixed in" for n in [counts.get("conversations", 0)] if n)
        + f"; {counts['weighted_steps']:,} steps learned, {masked:,} masked or left out"
        + f"; {counts['weighted_tokens']:,} of {counts['tokens']:,} tokens learned"
    )
    into = f"{counts['selections']:,} selections, {counts['steps']:,} steps"
    return into, out, counts["selections"] == counts["examples"] + sum(left_out.values())


def _tune(counts: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Each example of the data set is trained on, chats that were mixed in included."""
    out = (
        f"{counts['steps']:,} steps over {counts['tokens']:,} tokens "
        f"({counts['weighted_tokens']:,} learned), {markdown.share(counts['padding'])} padding"
    )
    into = f"{counts['examples']:,} examples"
    expected = before.get("examples", counts["examples"]) + before.get("conversations", 0)
    return into, out, counts["examples"] == expected
