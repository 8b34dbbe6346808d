"""Worked cases: what was learned from a trajectory and why, and tasks that got worse."""

from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax import scores, types
from eef_jax.report import markdown
from eef_jax.report.exploration import is_rollout
from eef_jax.report.run import Run
from eef_jax.types import Attempt

WORKED = 3
WORSE = 3

WHY = {
    types.KEPT_EXPERT_WIN: "the expert won with it",
    types.KEPT_OWN_WIN: "the policy took it in a rollout that won",
    types.KEPT_BENEFICIAL: "it leads from a state the policy failed from to one it won from",
    types.KEPT_ALL: "every expert action is learned",
    types.KEPT_FAILURE: "the attempt failed, and its conversation begins with the mark of failures",
    types.KEPT_PREFERRED: "the attempt won where the other side of its pair failed",
    types.KEPT_OTHER: "the attempt failed where the preferred side of its pair won",
    types.KEPT_BY_REWARD: "every completed attempt is learned, the more the higher its reward",
    types.KEPT_BY_ADVANTAGE: "reinforced or discouraged by its attempt's reward in its group",
    types.MASKED_CONTEXT: "context before the important state, not learned",
    types.MASKED_HARMFUL: "the policy won from before it and failed after it",
}


def worked(run: Run) -> list[str]:
    """Selections of the last round, one of each kind, with a row for each action."""
    number = max((i for i in range(run.rounds + 1) if run.selections(i)), default=None)
    if number is None:
        return ["Nothing was selected yet.", ""]
    goals = {t.task.id: t.task.goal for t in run.attempts("expert")}
    return [
        line
        for selection in _kinds(run.selections(number))[:WORKED]
        for line in _worked(run, number, selection, goals)
    ]


def _worked(
    run: Run, number: int, selection: Mapping[str, Any], goals: Mapping[str, str]
) -> list[str]:
    """A selection with a row for each action."""
    rows = [
        [
            place,
            markdown.code(step["action"]),
            step["source"],
            f"{step['weight']:g}",
            step["reason"],
            WHY.get(step["reason"], markdown.NONE),
        ]
        for place, step in enumerate(selection["steps"])
    ]
    header = ["step", "action", "by", "weight", "reason", "why"]
    task = selection["task"]
    return [
        f"**{markdown.text(run.label(number))}: {_describe(selection)}**",
        "",
        # Two spaces at the end of a line are Markdown's line break.
        f"Task {markdown.code(task)}: {markdown.code(goals.get(task, '(goal unknown)'), 400)}  ",
        f"Attempt {markdown.code(selection['trajectory'])}",
        "",
        *markdown.table(header, rows, texts=len(header)),
    ]


def worse(run: Run) -> list[str]:
    """Held-out tasks that the clone won and the last policy lost, and the overall change."""
    last = run.last()
    if not last or "round_0/evaluate" in run.missing:
        return ["There are no two evaluated policies to compare yet.", ""]
    before = _completed(run.attempts("round_0/evaluate"))
    after = _completed(run.attempts(f"round_{last}/evaluate"))
    names = run.label(0), run.label(last)
    # Tasks that infrastructure ended for one of the two policies compare nothing.
    both = [task for task in before if task in after]
    lost = [task for task in both if before[task].win and not after[task].win]
    gained = [task for task in both if after[task].win and not before[task].win]
    from_to = " to ".join(map(markdown.text, names))
    summary = f"Of {len(both)} tasks {len(gained)} were gained and {len(lost)} lost from {from_to}."
    wins = [[float(played[task].win) for task in both] for played in (after, before)]
    lines = [summary + _change(*wins), ""]
    for task in lost[:WORSE]:
        lines += _lost(dict(zip(names, (before[task], after[task]), strict=True)))
    return lines


def _change(after: list[float], before: list[float]) -> str:
    if not before:
        return ""
    change, low, high = (100 * x for x in scores.paired_difference([after], [before]))
    points = f"{change:+.1f} points [{low:+.1f}, {high:+.1f}]"
    return f" Change of the win rate, paired over tasks: {points}."


def _lost(attempts: Mapping[str, Attempt]) -> list[str]:
    """The actions of both policies on a lost task, by the policies' names."""
    task = next(iter(attempts.values())).task
    told = f"({markdown.text(', '.join(task.tags))}): {markdown.code(task.goal, 400)}"
    lines = [f"**Lost: {markdown.code(task.id)}** {told}", ""]
    for name, attempt in attempts.items():
        actions = " → ".join(markdown.code(step.action) for step in attempt.load().steps)
        told = f"({attempt.outcome}, reward {attempt.reward:.2f}): {actions}"
        lines.append(f"- {markdown.text(name)} {told}")
    return [*lines, ""]


def _kinds(selections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shortest selection of each kind, those learned from expert failures first."""
    found: dict[str, dict[str, Any]] = {}
    for selection in sorted(selections, key=lambda s: (len(s["steps"]), s["trajectory"])):
        found.setdefault(_describe(selection), selection)
    return sorted(found.values(), key=_interest)


def _interest(selection: Mapping[str, Any]) -> tuple[int, str]:
    reasons = {step["reason"] for step in selection["steps"]}
    beneficial = types.KEPT_BENEFICIAL in reasons
    # Learning from an expert's failure is what EEF adds to rejection sampling: shown first.
    interest = 2 * beneficial + (selection["state"] > 0) + is_rollout(selection)
    return -interest, _describe(selection)


def _describe(selection: Mapping[str, Any]) -> str:
    """The kind of a selection in words."""
    if not is_rollout(selection):
        return "an expert's attempt"
    reasons = {step["reason"] for step in selection["steps"]}
    way = "over the expert's actions" if types.KEPT_BENEFICIAL in reasons else "by the policy alone"
    state = "an expert state that needs recovery" if selection["state"] else "the task's start"
    return f"from {state}, solved {way}"


def _completed(attempts: Sequence[Attempt]) -> dict[str, Attempt]:
    return {t.task.id: t for t in attempts if t.outcome.completed}
