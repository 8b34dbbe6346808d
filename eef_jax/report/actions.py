"""What policies do on held-out tasks: shares of their most frequent kinds of action, by tag.

Independent of the environment: an action that occurs on many tasks (`click[next >]`) is its own
kind; an action of few tasks (a query, an item's id) counts by its first word, as `click ...`.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from eef_jax.report import markdown
from eef_jax.report.results import DIFFICULTY
from eef_jax.report.run import Run
from eef_jax.types import Attempt

COMMON = 0.1  # smallest share of a policy's tasks with which an action is its own kind
SHOWN = 5  # kinds in the table
INVALID = "(no action)"


def actions(run: Run) -> list[str]:
    """Table of shares of action kinds, by tag and round."""
    played = {
        run.label(number): attempts
        for number in range(run.rounds + 1)
        if (attempts := run.attempts(f"round_{number}/evaluate"))
    }
    if not played:
        return ["No policy was evaluated yet.", ""]
    counts = _count_kinds(played)
    total = sum(counts.values(), Counter[str]())
    kinds = sorted(total, key=lambda name: (-total[name], name))[:SHOWN]
    rows = [
        [tag, name, counter.total(), *(_share(counter, name_) for name_ in kinds)]
        for (tag, name), counter in sorted(counts.items(), key=lambda item: _order(item[0]))
    ]
    header = ["tasks", "policy", "actions", *map(markdown.code, kinds)]
    note = (
        f"Share of a policy's actions. An action of {COMMON * 100:.0f} % of a policy's tasks or "
        "more is its own kind; rarer actions (queries, ids) count by their first word."
    )
    return [note, "", *markdown.table(header, rows, texts=2)]


def _count_kinds(
    played: Mapping[str, Sequence[Attempt]],
) -> dict[tuple[str, str], Counter[str]]:
    """Counts of action kinds by (tag, policy)."""
    common = common_actions(played.values())
    return {
        (tag, name): Counter(
            kind(action, common) for t in attempts for action in _actions_of(t, tag)
        )
        for name, attempts in played.items()
        for tag in _tags(attempts)
    }


def common_actions(policies: Collection[Sequence[Attempt]]) -> frozenset[str]:
    """Actions that some policy takes on at least a share `COMMON` of its tasks."""
    found: set[str] = set()
    for attempts in policies:
        tasks = Counter(
            action
            for attempt in attempts
            for action in {step.action for step in attempt.load().steps if step.action}
        )
        found.update(a for a, count in tasks.items() if count >= COMMON * len(attempts))
    return frozenset(found)


def kind(action: str | None, common: Collection[str]) -> str:
    """The kind of an action."""
    if action is None or action in common:
        return action or INVALID
    first = re.match(r"\w*", action)
    word = first[0] if first else ""
    return word if word == action else f"{word} ...".strip()


def _tags(attempts: Sequence[Attempt]) -> list[str]:
    known = {tag for t in attempts for tag in t.task.tags}
    # An environment may not grade its tasks: then they are one group.
    return [tag for tag in DIFFICULTY if tag in known] or ["all"]


def _actions_of(attempt: Attempt, tag: str) -> list[str | None]:
    if tag != "all" and tag not in attempt.task.tags:
        return []
    return [step.action for step in attempt.load().steps]


def _share(counter: Mapping[str, int], name: str) -> str:
    total = sum(counter.values())
    return markdown.share(counter[name] / total if total else None)


def _order(key: tuple[str, str]) -> int:
    """Sort key: tags in order of difficulty; sorting is stable, so policies keep their order."""
    return DIFFICULTY.index(key[0]) if key[0] in DIFFICULTY else 0
