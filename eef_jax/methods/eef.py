"""EEF: roll out from states of failed expert trajectories; learn the expert actions that help.

"Exploring Expert Failures Improves LLM Agent Tuning" (arXiv 2504.13145). With an expert trajectory
s_0, a_0, s_1, ..., s_T and skip length l = max(1, floor(T / (M + 1))), each round

1. plays K rollouts from s_0 of every task and from s_l, s_2l, ..., s_Ml of every failed trajectory;
2. labels each of these states: it passes if enough of its completed rollouts win;
3. marks the expert's actions between a passing state and a next, failing state as harmful; the
   failing state needs recovery. It and s_0 are the important states;
4. solves an important state by its own winning rollout, or by the expert's (beneficial) actions to
   the nearest later state that passes, followed by a winning rollout from there;
5. trains on the solutions: weight 1 from the important state to the win, weight 0 before it and on
   harmful actions.

Choices that the paper leaves open are fields of `Eef`.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from eef_jax.config.fields import check, field
from eef_jax.methods import _forks, _solutions
from eef_jax.methods._solutions import Solution
from eef_jax.methods.base import Attempts
from eef_jax.types import Attempt, Episode, Selection, Task

Recovery = Literal["previous", "any_earlier"]

# An important state: the task, the expert trajectory (None: the task's s_0) and the step within it.
Important = tuple[str, str | None, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What one round's rollouts say about the states of one expert trajectory.

    Attributes:
        expert: the expert's trajectory.
        passed: for each explored step, whether its state passed. A state without a completed
            rollout has no label and is absent, so that its two neighbours become adjacent.
    """

    expert: Attempt
    passed: Mapping[int, bool]

    def harmful(self) -> Iterator[int]:
        """Steps of the actions between a state that passed and the next one, which did not."""
        for before, after in self._neighbours():
            if self.passed[before] and not self.passed[after]:
                yield from range(before, after)

    def recovery(self, rule: Recovery) -> Iterator[int]:
        """Steps of the states that need recovery: failed, after a state that passed.

        Args:
            rule: which earlier states count: the `previous` labelled one, or `any_earlier`.
        """
        passed_before = False
        for before, after in self._neighbours():
            passed_before = self.passed[before] or (passed_before and rule == "any_earlier")
            if passed_before and not self.passed[after]:
                yield after

    def next_passing(self, step: int) -> int | None:
        """Step of the nearest later state that passed: the actions up to it are beneficial."""
        return next(
            (later for later, passed in self.passed.items() if passed and later > step), None
        )

    def _neighbours(self) -> Iterable[tuple[int, int]]:
        return itertools.pairwise(self.passed)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What the rollouts of one round show.

    Attributes:
        important: the states to solve: every task's s_0 and all states that need recovery.
        found: this round's solutions of important states that start with expert actions.
        harmful: expert actions not to learn, each identified by the state that it leads to.
    """

    important: Sequence[Important]
    found: Mapping[Important, Sequence[Solution]]
    harmful: Collection[_forks.State]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Eef:
    """The method of the paper, and its section of the config."""

    name: str = dataclasses.field(default="eef", init=False)
    rounds: int = field(3, "I, explore-select-tune rounds after the clone", at_least=0)
    states: int = field(5, "M, states to explore in an expert trajectory", at_least=0)
    rollouts: int = field(1, "K, rollouts from each state and from s_0", at_least=1)
    threshold: float | None = field(
        None,
        "share of wins among a state's completed rollouts from which it passes; None: any win",
        above=0,
        at_most=1,
    )
    explore: _forks.Explore = field("failed", "expert trajectories to explore")
    recovery: Recovery = field(
        "previous", "a failed state needs recovery after the previous, or any earlier, passed one"
    )
    choice: _solutions.Choice = field("shortest", "which of several solutions is kept")
    expert_wins: bool = field(True, "train on the expert's wins after round 0 as well")
    seed: int = field(0, "of choice=random alone", at_least=0)

    def __post_init__(self) -> None:
        check(self, "method")

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        experts = _forks.by_task(attempts.experts, tasks)
        orders: list[Episode] = []
        for task in tasks:
            starts = _forks.starts(
                experts[task.id], states=self.states, explore=self.explore, max_steps=max_steps
            )
            orders += _forks.episodes(
                task, starts, round=round, rollouts=self.rollouts, max_steps=max_steps
            )
        return orders

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        if round == 0:
            return _solutions.select_expert_wins(attempts, tasks)
        # The repository of solutions: earlier rounds are labelled again from their own rollouts, so
        # no state has to be stored between rounds.
        rounds = [self._label_round(attempts, tasks, number) for number in range(1, round + 1)]
        current = rounds[-1]
        own = _solutions.own_wins(attempts, tasks, round)
        selections: list[Selection] = []
        if self.expert_wins:
            selections += _solutions.select_expert_wins(attempts, tasks, current.harmful)
        for state in current.important:
            task, expert, _ = state
            # s_0 stays solved by any own win of any round. A stored solution of a recovery state is
            # used only while the state is important, and not if it would teach an action that this
            # round labels harmful.
            candidates = list(own[task]) if expert is None else []
            candidates += [
                solution
                for each in rounds
                for solution in each.found.get(state, ())
                if not any(action in current.harmful for action in solution.expert_actions())
            ]
            if candidates:
                best = _solutions.choose(candidates, self.choice, self.seed)
                role = _solutions.S0 if expert is None else _solutions.RECOVERY
                selections.append(_solutions.select_solution(best, role, current.harmful))
        return _once(selections)

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        selections = self.select(attempts, tasks, round)
        facts = _solutions.summarize(selections, attempts, tasks, round, self.states)
        if round > 0:
            current = self._label_round(attempts, tasks, round)
            facts["recovery_states"] = sum(expert is not None for _, expert, _ in current.important)
            facts["harmful_actions"] = len(current.harmful)
        return facts

    def _label_round(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Round:
        """Label the expert states by one round of rollouts; find solutions and harmful actions."""
        experts = {expert.id: expert for expert in attempts.experts}
        rollouts: dict[_forks.State, list[Attempt]] = {}
        for rollout in attempts.rollouts:
            if rollout.round == round:
                rollouts.setdefault(_forks.origin(rollout, experts), []).append(rollout)

        important: list[Important] = []
        found: dict[Important, list[Solution]] = {}
        harmful: set[_forks.State] = set()
        for task, experts_of_task in _forks.by_task(attempts.experts, tasks).items():
            important.append((task, None, 0))
            for expert in _forks.explored(experts_of_task, self.explore):
                labels = self._label(expert, rollouts)
                harmful.update(_forks.state(expert, step + 1) for step in labels.harmful())
                recovery = [(task, expert.id, step) for step in labels.recovery(self.recovery)]
                important += recovery
                unsolved = [] if labels.passed.get(0) else [(task, None, 0)]
                for state in [*unsolved, *recovery]:
                    # Without a later passing state nothing is learned from this state: the last
                    # actions of a failed trajectory are never taught.
                    passing = labels.next_passing(state[-1])
                    if passing is not None:
                        found.setdefault(state, []).extend(
                            Solution(rollout=rollout, step=state[-1])
                            for rollout in rollouts[_forks.state(expert, passing)]
                            if rollout.win
                        )
        return Round(important=important, found=found, harmful=harmful)

    def _label(self, expert: Attempt, rollouts: Mapping[_forks.State, Sequence[Attempt]]) -> Labels:
        passed = {}
        # No cap on the steps here: states beyond it were not played and so get no label.
        for step in (0, *_forks.fork_steps(expert.length, self.states)):
            played = rollouts.get(_forks.state(expert, step), ())
            completed = [rollout for rollout in played if rollout.outcome.completed]
            if completed:
                wins = sum(rollout.win for rollout in completed)
                passed[step] = wins > 0 and wins / len(completed) >= (self.threshold or 0)
        return Labels(expert=expert, passed=passed)


def _once(selections: Iterable[Selection]) -> list[Selection]:
    """Drop duplicates: two experts with an equal prefix can share a recovery rollout."""
    kept: dict[tuple[str, tuple[float, ...]], Selection] = {}
    for selection in selections:
        kept.setdefault((selection.trajectory.id, selection.weights), selection)
    return list(kept.values())


Config = Eef


def make(config: Eef) -> Eef:
    """The method; its config section is the method itself."""
    return config
