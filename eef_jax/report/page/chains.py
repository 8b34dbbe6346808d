"""An expert's attempt as the paper's Figure 1: its states, the rollouts from each, its actions.

What a round says of an attempt is read from the round's rollouts and selections.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from eef_jax.methods import _forks
from eef_jax.methods.eef import Labels, Recovery
from eef_jax.report.run import Run
from eef_jax.types import KEPT_BENEFICIAL, MASKED_HARMFUL, Attempt


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state of an expert's attempt in one round.

    Attributes:
        step: actions before it.
        rollouts: the round's rollouts from it.
        completed: of these, without those that infrastructure ended.
        wins: of these, how many won.
        passed: whether it passed; None without a completed rollout.
        recovers: whether it failed after a state that passed.
        solution: the selected trajectory that solves it, if it is important and solved.
    """

    step: int
    rollouts: Sequence[Attempt]
    completed: int
    wins: int
    passed: bool | None
    recovers: bool
    solution: Attempt | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a round says of an expert's attempt.

    Attributes:
        round: number of the round.
        states: those that were explored, s_0 first.
        reasons: for each action, why it is learned or masked; () where nothing was decided.
    """

    round: int
    states: Sequence[State]
    reasons: Sequence[tuple[str, ...]]


class Round:
    """A round's rollouts by the state they start from, and its selections.

    Args:
        run: the run.
        number: of the round; 0 has selections alone.
        experts: the experts' attempts by their ids.
        known: all attempts of the run by their ids.
    """

    def __init__(
        self,
        run: Run,
        number: int,
        experts: Mapping[str, Attempt],
        known: Mapping[str, Attempt],
    ):
        self.number = number
        self.selections = [s for s in run.selections(number) if s["trajectory"] in known]
        options = run.config.method.options
        self._states: int | None = getattr(options, "states", None)
        self._threshold: float = getattr(options, "threshold", None) or 0.0
        self._recovery: Recovery = getattr(options, "recovery", "previous")
        self._rollouts: dict[_forks.State, list[Attempt]] = {}
        for rollout in run.attempts(f"round_{number}/explore") if number else ():
            if rollout.parent is None or rollout.parent in experts:
                self._rollouts.setdefault(_forks.origin(rollout, experts), []).append(rollout)
        self._reasons: dict[_forks.State, list[str]] = {}
        self._solutions: dict[tuple[str, str, bytes], Attempt] = {}
        for selection in self.selections:
            self._note(selection, known[selection["trajectory"]])

    def _note(self, selection: Mapping[str, Any], attempt: Attempt) -> None:
        """Remember what a selection says of each of an expert's actions in it."""
        for step, verdict in enumerate(selection["steps"]):
            if verdict["source"] == "expert":
                found = self._reasons.setdefault(_forks.state(attempt, step + 1), [])
                if verdict["reason"] not in found:
                    found.append(verdict["reason"])
        start = attempt.prefix(selection["state"])
        self._solutions[attempt.task.id, selection["role"], start] = attempt

    def chain(self, expert: Attempt) -> Chain:
        """What this round says of an expert's attempt."""
        steps = [
            step for step in self._steps(expert) if _forks.state(expert, step) in self._rollouts
        ]
        passed = {step: self._passed(expert, step) for step in steps}
        labels = Labels(expert=expert, passed={s: p for s, p in passed.items() if p is not None})
        recovers = set(labels.recovery(self._recovery))
        states = [
            self._state(expert, step, passed=passed[step], recovers=step in recovers)
            for step in steps
        ]
        harmful = set(labels.harmful())
        reasons = [
            tuple(self._of_action(expert, step, harmful=step in harmful))
            for step in range(expert.length)
        ]
        return Chain(round=self.number, states=states, reasons=reasons)

    def _steps(self, expert: Attempt) -> Iterable[int]:
        if self._states is None:
            return range(expert.length)
        return 0, *_forks.fork_steps(expert.length, self._states)

    def _completed(self, expert: Attempt, step: int) -> list[Attempt]:
        played = self._rollouts[_forks.state(expert, step)]
        return [rollout for rollout in played if rollout.outcome.completed]

    def _passed(self, expert: Attempt, step: int) -> bool | None:
        completed = self._completed(expert, step)
        if not completed:
            return None
        wins = sum(rollout.win for rollout in completed)
        return wins > 0 and wins / len(completed) >= self._threshold

    def _state(self, expert: Attempt, step: int, *, passed: bool | None, recovers: bool) -> State:
        completed = self._completed(expert, step)
        return State(
            step=step,
            rollouts=self._rollouts[_forks.state(expert, step)],
            completed=len(completed),
            wins=sum(rollout.win for rollout in completed),
            passed=passed,
            recovers=recovers,
            solution=self._solution(expert, step),
        )

    def _solution(self, expert: Attempt, step: int) -> Attempt | None:
        """The selected trajectory from a state, if it goes on along this attempt or by itself."""
        role = "recovery" if step else "s0"
        found = self._solutions.get((expert.task.id, role, expert.prefix(step)))
        if found is None or found.prefix(found.fork_step) == expert.prefix(found.fork_step):
            return found
        return None

    def _of_action(self, expert: Attempt, step: int, *, harmful: bool) -> Iterator[str]:
        found = self._reasons.get(_forks.state(expert, step + 1), [])
        if harmful and MASKED_HARMFUL not in found:
            yield MASKED_HARMFUL
        # What is learned from an action comes before what is masked elsewhere.
        yield from sorted(found, key=lambda reason: (reason != KEPT_BENEFICIAL, reason))
