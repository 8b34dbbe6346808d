"""An expert's attempt as the paper's Figure 1: its states, the rollouts from each, its actions.

What a round says of an attempt is read from the round's rollouts and selections.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from eef_jax.methods import _forks
from eef_jax.methods._solutions import RECOVERY, S0
from eef_jax.methods.eef import Labels, Recovery
from eef_jax.report.examples import WHY
from eef_jax.report.run import Run
from eef_jax.types import MASKED_HARMFUL, Attempt

Kind = Literal["kept", "harmful", "context"]

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def state_name(number: int) -> str:
    """A state as the paper writes it: s₀, s₁, ..."""
    return f"s{str(number).translate(_SUBSCRIPTS)}"


def kind(reason: str) -> Kind:
    """What a reason makes of an action."""
    if reason.startswith("kept"):
        return "kept"
    return "harmful" if reason == MASKED_HARMFUL else "context"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a round says of an action.

    Attributes:
        reason: one of the constants in `types`.
        states: numbers k of the important states s_k whose solutions say so; () where it is said
            of the action itself, or of a state of another attempt that begins in the same way.
    """

    reason: str
    states: tuple[int, ...] = ()

    @property
    def kind(self) -> Kind:
        """What it makes of the action."""
        return kind(self.reason)

    @property
    def words(self) -> str:
        """The verdict and why, as a clause: for s₀: kept, it leads from ..."""
        verdict = self.reason.partition(":")[0]
        why = WHY.get(self.reason)
        if why is None:
            return self.reason
        if not self.states:
            return f"{verdict}: {why}"
        return f"for {' and '.join(map(state_name, self.states))}: {verdict}, {why}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state of an expert's attempt in one round.

    Attributes:
        number: k of its name s_k.
        step: actions before it.
        rollouts: the round's rollouts from it.
        completed: of these, without those that infrastructure ended.
        wins: of these, how many won.
        passed: whether it passed; None without a completed rollout.
        recovers: whether it failed after a state that passed.
        solution: the selected trajectory that solves it, if it is important and solved.
    """

    number: int
    step: int
    rollouts: Sequence[Attempt]
    completed: int
    wins: int
    passed: bool | None
    recovers: bool
    solution: Attempt | None

    @property
    def name(self) -> str:
        """As the paper writes it: s₀, s₁, ..."""
        return state_name(self.number)

    @property
    def words(self) -> str:
        """Its label and the rollouts that decided it, as a clause."""
        if self.passed is None:
            return "has no completed rollout, so no label"
        label = "passed" if self.passed else "failed"
        rollouts = f"completed rollout{'s' * (self.completed != 1)}"
        return f"{label}: {self.wins} of {self.completed} {rollouts} won"

    @property
    def notes(self) -> tuple[str, ...]:
        """What else there is to say of it, a sentence each."""
        notes = []
        if self.recovers:
            notes.append("It failed after a state that passed: it needs recovery.")
        if self.solution is None and (self.recovers or (not self.step and self.passed is False)):
            notes.append("No later state passed: nothing is learned from it.")
        return tuple(notes)

    @property
    def way(self) -> str:
        """Whose actions solve it; "" where nothing does."""
        if self.solution is None:
            return ""
        first, fork = self.step + 1, self.solution.fork_step
        if fork < first:
            return "the policy's own actions alone"
        actions = f"action {fork}" if fork == first else f"actions {first} to {fork}"
        return f"the expert's beneficial {actions}, then the policy's own"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a round says of an expert's attempt.

    Attributes:
        round: number of the round.
        states: those that were explored, s_0 first.
        verdicts: for each action, why it is learned or masked, what is learned first; () where
            nothing was decided.
    """

    round: int
    states: Sequence[State]
    verdicts: Sequence[tuple[Verdict, ...]]

    def unused(self, step: int) -> str:
        """Why an action is neither learned nor masked; "" where it is, or nothing was explored."""
        if self.verdicts[step] or not self.states:
            return ""
        later = [state.passed for state in self.states if state.step > step]
        if any(later):
            return "not used: no solution needs it"
        return f"not used: no state after it {'passed' if later else 'was explored'}"


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
        # The reasons of an action, each with the important state (step, prefix) it is of, if any.
        self._reasons: dict[_forks.State, list[tuple[str, int | None, bytes]]] = {}
        self._solutions: dict[tuple[str, str, bytes], Attempt] = {}
        for selection in self.selections:
            self._note(selection, known[selection["trajectory"]])

    def _note(self, selection: Mapping[str, Any], attempt: Attempt) -> None:
        """Remember what a selection says of each of an expert's actions in it."""
        start = attempt.prefix(selection["state"])
        solved = selection["state"] if selection["role"] in (S0, RECOVERY) else None
        for step, verdict in enumerate(selection["steps"]):
            if verdict["source"] == "expert":
                found = self._reasons.setdefault(_forks.state(attempt, step + 1), [])
                found.append((verdict["reason"], solved, start))
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
            self._state(expert, number, step, passed=passed[step], recovers=step in recovers)
            for number, step in enumerate(steps)
        ]
        harmful, numbers = set(labels.harmful()), {step: k for k, step in enumerate(steps)}
        verdicts = [
            tuple(self._of_action(expert, step, numbers, harmful=step in harmful))
            for step in range(expert.length)
        ]
        return Chain(round=self.number, states=states, verdicts=verdicts)

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

    def _state(
        self, expert: Attempt, number: int, step: int, *, passed: bool | None, recovers: bool
    ) -> State:
        completed = self._completed(expert, step)
        return State(
            number=number,
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
        role = RECOVERY if step else S0
        found = self._solutions.get((expert.task.id, role, expert.prefix(step)))
        if found is None or found.prefix(found.fork_step) == expert.prefix(found.fork_step):
            return found
        return None

    def _of_action(
        self, expert: Attempt, step: int, numbers: Mapping[int, int], *, harmful: bool
    ) -> Iterator[Verdict]:
        """The verdicts on an action; `numbers` has the number of each explored step's state."""
        found: dict[str, set[int]] = {MASKED_HARMFUL: set()} if harmful else {}
        for reason, solved, start in self._reasons.get(_forks.state(expert, step + 1), ()):
            states = found.setdefault(reason, set())
            # An action is harmful whichever state is solved. An attempt that begins in the same
            # way may have its important state after the two part.
            if reason == MASKED_HARMFUL or solved is None or solved not in numbers:
                continue
            if expert.prefix(solved) == start:
                states.add(numbers[solved])
        order = {"kept": 0, "harmful": 1, "context": 2}
        for reason in sorted(found, key=lambda reason: (order[kind(reason)], reason)):
            yield Verdict(reason=reason, states=tuple(sorted(found[reason])))
