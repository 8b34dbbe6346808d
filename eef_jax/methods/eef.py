"""EEF: explore the states of the experts' failures, keep what leads to wins, mask what does harm.

"Exploring Expert Failures Improves LLM Agent Tuning" (arXiv 2504.13145). Each round plays every
task from its start s_0 and from M states of each failed expert trajectory. The wins label the
states; the labels tell harmful from beneficial expert actions and name the states that need
recovery. What the paper leaves open is a field of `Eef`. Everything is a pure function of the
attempts: solutions of earlier rounds are computed again from those rounds' rollouts.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from eef_jax.errors import ConfigError, check_at_least, check_one_of
from eef_jax.methods import _forks, _solutions
from eef_jax.methods._solutions import Solution
from eef_jax.methods.base import Attempts
from eef_jax.types import Episode, Selection, Task, Trajectory

Recovery = Literal["previous", "any_earlier"]
RECOVERIES: tuple[Recovery, ...] = ("previous", "any_earlier")

# An important state: the task, the expert trajectory (None: the task's s_0) and the step within it.
Important = tuple[str, str | None, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What one round's rollouts say about the states of one expert trajectory.

    Attributes:
        expert: the expert's attempt.
        passed: by step, whether its state passed; a state without a completed rollout is left out,
            so the neighbours of an unlabelled state are each other's.
    """

    expert: Trajectory
    passed: Mapping[int, bool]

    def harmful(self) -> Iterator[int]:
        """Steps of the actions between a state that passed and a next one that did not."""
        for before, after in self._neighbours():
            if self.passed[before] and not self.passed[after]:
                yield from range(before, after)

    def recovery(self, rule: Recovery) -> Iterator[int]:
        """Steps of the states that need recovery: failed, after a passed state.

        Args:
            rule: `previous` looks at the labelled state just before, `any_earlier` at all of them.
        """
        lost = False
        for before, after in self._neighbours():
            lost = self.passed[before] or (lost and rule == "any_earlier")
            if lost and not self.passed[after]:
                yield after

    def way_out(self, step: int) -> int | None:
        """Step of the nearest later state that passed: the actions up to there are beneficial."""
        return next(
            (later for later, passed in self.passed.items() if passed and later > step), None
        )

    def _neighbours(self) -> Iterable[tuple[int, int]]:
        return itertools.pairwise(self.passed)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round as its own rollouts tell it.

    Attributes:
        important: the states to solve: every task's s_0 and all that need recovery.
        found: this round's solutions of important states that lead over an expert's actions.
        harmful: expert actions not to learn, each as the state that it ends in.
    """

    important: Sequence[Important]
    found: Mapping[Important, Sequence[Solution]]
    harmful: Collection[_forks.State]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Eef:
    """The method of the paper; defaults as in method.md.

    Attributes:
        rounds: I, explore-select-tune rounds after the clone.
        states: M, expert states to explore in each trajectory.
        rollouts: K, rollouts from each state and from s_0.
        threshold: share of wins among a state's completed rollouts (0-1) from which it passes;
            None: any win.
        explore: expert trajectories to explore, `failed` or `all`.
        recovery: which failed states need recovery, see `Labels.recovery`.
        choice: which one of several solutions is kept, see `_solutions.choose`.
        expert_wins: whether the experts' wins are trained on after round 0, too.
        seed: of `choice="random"` alone.

    Raises:
        ConfigError: for a value that a field does not take.
    """

    name: str = dataclasses.field(default="eef", init=False)
    rounds: int = 3
    states: int = 5
    rollouts: int = 1
    threshold: float | None = None
    explore: _forks.Explore = "failed"
    recovery: Recovery = "previous"
    choice: _solutions.Choice = "shortest"
    expert_wins: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of("method.explore", self.explore, _forks.EXPLORE)
        check_one_of("method.recovery", self.recovery, RECOVERIES)
        check_one_of("method.choice", self.choice, _solutions.CHOICES)
        check_at_least("method.rounds", self.rounds, 0)
        check_at_least("method.states", self.states, 0)
        check_at_least("method.rollouts", self.rollouts, 1)
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ConfigError(
                f"method.threshold is {self.threshold}, expected a share of wins above 0 and up to "
                "1, or None for any win"
            )

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
        rounds = [self._read(attempts, tasks, number) for number in range(1, round + 1)]
        now = rounds[-1]
        own = _solutions.own_wins(attempts, tasks, round)
        selections: list[Selection] = []
        if self.expert_wins:
            selections += _solutions.select_expert_wins(attempts, tasks, now.harmful)
        for state in now.important:
            task, expert, _ = state
            candidates = list(own[task]) if expert is None else []
            candidates += [
                solution
                for each in rounds
                for solution in each.found.get(state, ())
                if not any(action in now.harmful for action in solution.expert_actions())
            ]
            if candidates:
                best = _solutions.choose(candidates, self.choice, self.seed)
                role = _solutions.S0 if expert is None else _solutions.RECOVERY
                selections.append(_solutions.select_solution(best, role, now.harmful))
        return _once(selections)

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        selections = self.select(attempts, tasks, round)
        facts = _solutions.summarize(selections, attempts, tasks, round, self.states)
        if round > 0:
            now = self._read(attempts, tasks, round)
            facts["recovery_states"] = sum(expert is not None for _, expert, _ in now.important)
            facts["harmful_actions"] = len(now.harmful)
        return facts

    def _read(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Round:
        """Label the states of a round by that round's rollouts, and draw the conclusions."""
        experts = {expert.id: expert for expert in attempts.experts}
        rollouts: dict[_forks.State, list[Trajectory]] = {}
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
                lost = [] if labels.passed.get(0) else [(task, None, 0)]
                for state in [*lost, *recovery]:
                    out = labels.way_out(state[-1])
                    if out is not None:
                        found.setdefault(state, []).extend(
                            Solution(rollout=rollout, step=state[-1])
                            for rollout in rollouts[_forks.state(expert, out)]
                            if rollout.win
                        )
        return Round(important=important, found=found, harmful=harmful)

    def _label(
        self, expert: Trajectory, rollouts: Mapping[_forks.State, Sequence[Trajectory]]
    ) -> Labels:
        passed = {}
        for step in (0, *_forks.fork_steps(len(expert.steps), self.states)):
            played = rollouts.get(_forks.state(expert, step), ())
            completed = [rollout for rollout in played if rollout.outcome.completed]
            if completed:
                wins = sum(rollout.win for rollout in completed)
                passed[step] = wins > 0 and wins / len(completed) >= (self.threshold or 0)
        return Labels(expert=expert, passed=passed)


def _once(selections: Iterable[Selection]) -> list[Selection]:
    """Leave out repetitions: two experts with an equal prefix recover by the same rollout."""
    kept: dict[tuple[str, tuple[float, ...]], Selection] = {}
    for selection in selections:
        kept.setdefault((selection.trajectory.id, selection.weights), selection)
    return list(kept.values())


make = Eef
