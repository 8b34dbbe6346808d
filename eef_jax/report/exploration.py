"""Results of exploration: wins by expert state, train tasks solved, and what is trained on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from eef_jax import scores
from eef_jax.report import markdown
from eef_jax.report.run import Run
from eef_jax.types import Attempt

# Facts of a round in the table of solved tasks, and their columns.
_FACTS = {
    "solved_only_through_failure": "only through an expert failure",
    "recovery_states": "recovery states",
    "harmful_actions": "harmful actions",
}


def rollout_yield(run: Run) -> list[str]:
    """Rollouts and wins by the expert state s_k that the rollouts started from."""
    rows: list[list[object]] = []
    for number in range(1, run.rounds + 1):
        by_state = run.facts(number).get("yield", {})
        rows += [_row(number, f"s_{k}", counts) for k, counts in by_state.items()]
        later = [counts for k, counts in by_state.items() if k != "0"]
        if later:
            rows.append(_row(number, "expert states, all k >= 1", _sum(later)))
            tasks, same = _same_tasks_from_s0(run.attempts(f"round_{number}/explore"))
            rows.append(_row(number, f"s_0 of their {tasks} tasks", same))
    if not rows:
        return [
            "No round has explored and selected yet."
            if run.rounds
            else "The method plays nothing.",
            "",
        ]
    header = ["round", "from", "played", "completed", "won", "win share of completed"]
    note = (
        "Not every task has expert states (those of easy tasks are mostly not explored), so the "
        "fair comparison for them is s_0 of the same tasks."
    )
    return [note, "", *markdown.table(header, rows, texts=2)]


def solved(run: Run) -> list[str]:
    """Train tasks with at least one selection, and rollouts that enter the training set."""
    rows: list[list[object]] = []
    played = 0
    for number in range(run.rounds + 1):
        if f"round_{number}/select" in run.missing:
            continue
        facts, selections = run.facts(number), run.selections(number)
        played += run.counts(f"round_{number}/explore").get("episodes", 0)
        used = len({s["trajectory"] for s in selections if is_rollout(s)})
        # A method outside the tree may report no facts: count what the run's files show.
        tasks = facts.get("tasks", run.counts("expert").get("episodes"))
        solved_tasks = facts.get("solved", len({s["task"] for s in selections}))
        rows.append(
            [
                run.label(number),
                tasks,
                solved_tasks,
                *(facts.get(name) for name in _FACTS),
                played,
                used,
                markdown.share(used / played if played else None),
            ]
        )
    header = ["policy", "train tasks", "solved", *_FACTS.values()]
    return markdown.table([*header, "rollouts so far", "of them trained on", "share"], rows)


def selected(run: Run) -> list[str]:
    """Examples by role and steps by reason, for each round."""
    rounds = [i for i in range(run.rounds + 1) if f"round_{i}/select" in run.manifests]
    roles, reasons = {}, {}
    for number in rounds:
        selections = run.selections(number)
        roles[number] = Counter(s["role"] for s in selections)
        reasons[number] = Counter(x["reason"] for s in selections for x in s["steps"])
    header = [run.label(number) for number in rounds]
    lines = []
    for title, counts in (("examples by role", roles), ("steps by reason", reasons)):
        names = sorted({name for counter in counts.values() for name in counter})
        rows = [[name, *(counts[number][name] for number in rounds)] for name in names]
        rows.append(["in all", *(counts[number].total() for number in rounds)])
        lines += markdown.table([title, *header], rows)
    return lines


def is_rollout(selection: Mapping[str, Any]) -> bool:
    """Whether a selected trajectory is a rollout (a winning one has at least one policy action)."""
    return any(step["source"] == "policy" for step in selection["steps"])


def _same_tasks_from_s0(rollouts: Iterable[Attempt]) -> tuple[int, Counter[str]]:
    """Rollouts from s_0 of the tasks that were also played from expert states."""
    rollouts = list(rollouts)
    tasks = {rollout.task.id for rollout in rollouts if rollout.parent}
    counts = Counter(played=0, completed=0, wins=0)
    for rollout in rollouts:
        if rollout.task.id in tasks and not rollout.parent:
            counts.update(played=1, completed=rollout.outcome.completed, wins=rollout.win)
    return len(tasks), counts


def _sum(rows: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row)
    return total


def _row(number: int, start: str, counts: Mapping[str, int]) -> list[object]:
    wins, completed = counts["wins"], counts["completed"]
    # A rollout that infrastructure ended says nothing about the state it started from.
    share = wins / completed if completed else None
    interval = scores.wilson_interval(wins, completed) if completed else None
    return [number, start, counts["played"], completed, wins, markdown.share(share, interval)]
