"""The attempts of a run's train tasks, with what its rounds say of them."""

import enum
from typing import Any

from eef_jax.methods._solutions import RECOVERY
from eef_jax.report.chains import Chain, Round
from eef_jax.report.run import Run
from eef_jax.types import Attempt


class Fact(enum.IntFlag):
    """What is true of an attempt, for filters.

    Members:
        SELECTED: it was trained on.
        THROUGH_FAILURE: its task was solved only through an expert's failure.
        RECOVERY: it has, or solves, a state that needs recovery.
        HARMFUL: it is an expert's, and an action of it is harmful.
    """

    SELECTED = 1
    THROUGH_FAILURE = 2
    RECOVERY = 4
    HARMFUL = 8


class Judged:
    """What the rounds of a run say of its attempts.

    Args:
        run: the run, finished or not.

    Attributes:
        stages: the finished stages that played train tasks.
        attempts: their attempts by id.
        experts: those of them that an expert made.
        rounds: the rounds that were played, and the clone's.
        chains: for each expert's attempt what the rounds say of it, those that say something.
        selected: for each selected attempt the rounds, each with its selection.
        facts: for each attempt what filters ask for.

    Raises:
        DataError: a file of a finished stage is missing or damaged.
    """

    def __init__(self, run: Run):
        self.stages = [s for s in run.manifests if s.rpartition("/")[2] in ("expert", "explore")]
        self.attempts = {a.id: a for stage in self.stages for a in run.attempts(stage)}
        self.experts = {a.id: a for a in self.attempts.values() if a.source == "expert"}
        played = [n for n in range(run.rounds + 1) if not n or f"round_{n}/explore" in self.stages]
        self.rounds = [Round(run, n, self.experts, self.attempts) for n in played]
        self.chains: dict[str, list[Chain]] = {}
        for expert in self.experts.values():
            chains = [each.chain(expert) for each in self.rounds]
            self.chains[expert.id] = [c for c in chains if c.states or any(c.verdicts)]
        self.selected: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for each in self.rounds:
            for selection in each.selections:
                found = self.selected.setdefault(selection["trajectory"], [])
                found.append((each.number, selection))
        through = through_failure(run)
        self.facts = {name: self._facts(a, through) for name, a in self.attempts.items()}

    def _facts(self, attempt: Attempt, through: set[str]) -> Fact:
        selections = [selection for _, selection in self.selected.get(attempt.id, ())]
        chains = self.chains.get(attempt.id, ())
        verdicts = [v for chain in chains for found in chain.verdicts for v in found]
        recovers = any(selection["role"] == RECOVERY for selection in selections)
        recovers |= any(state.recovers for chain in chains for state in chain.states)
        known = {
            Fact.SELECTED: bool(selections),
            Fact.THROUGH_FAILURE: attempt.task.id in through,
            Fact.RECOVERY: recovers,
            Fact.HARMFUL: any(verdict.kind == "harmful" for verdict in verdicts),
        }
        return Fact(sum(fact for fact, holds in known.items() if holds))


def through_failure(run: Run) -> set[str]:
    """Train tasks solved in the last selection, without a win of the expert or one from s_0."""
    numbers = [n for n in range(run.rounds + 1) if f"round_{n}/select" in run.manifests]
    if not numbers:
        return set()
    solved = {selection["task"] for selection in run.selections(numbers[-1])}
    wins = {attempt.task.id for attempt in run.attempts("expert") if attempt.win}
    for number in range(1, numbers[-1] + 1):
        played = run.attempts(f"round_{number}/explore")
        wins |= {attempt.task.id for attempt in played if attempt.win and not attempt.parent}
    return solved - wins
