"""Candidate training data: expert wins, winning rollouts, and the choice among several solutions.

Shared by all methods, so that methods differ in where they start rollouts and what they select, but
never in how they break ties.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from eef_jax.methods import _forks
from eef_jax.methods.base import Attempts
from eef_jax.types import (
    KEPT_ALL,
    KEPT_BENEFICIAL,
    KEPT_EXPERT_WIN,
    KEPT_OWN_WIN,
    MASKED_CONTEXT,
    MASKED_HARMFUL,
    Attempt,
    Selection,
    Task,
)

Choice = Literal["shortest", "random", "newest"]

EXPERT = "expert"
EXPERT_WIN = "expert_win"
S0 = "s0"
RECOVERY = "recovery"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A winning rollout as the solution of one of the states that it passes through.

    Attributes:
        rollout: the win; its steps before `rollout.fork_step` are an expert's actions.
        step: index of the solved state; the steps from it to the win are learned.
    """

    rollout: Attempt
    step: int = 0

    @property
    def length(self) -> int:
        """Environment steps from the solved state to the win."""
        return self.rollout.length - self.step

    def expert_actions(self) -> Iterable[_forks.State]:
        """The expert actions that are learned, each identified by the state that it leads to."""
        steps = range(self.step, self.rollout.fork_step)
        return (_forks.state(self.rollout, step + 1) for step in steps)


def choose(solutions: Sequence[Solution], rule: Choice, seed: int = 0) -> Solution:
    """Choose one solution of a state; ties go to the newest round, then to the smaller id.

    The paper does not say which one it keeps.

    Args:
        solutions: at least one solution.
        rule: `shortest` (fewest environment steps from the state to the win), `newest` (last round,
            then shortest) or `random` (uniform).
        seed: seed of the rule `random`.
    """

    def shortest(solution: Solution) -> tuple[Any, ...]:
        return solution.length, -solution.rollout.round, solution.rollout.id

    def newest(solution: Solution) -> tuple[Any, ...]:
        return -solution.rollout.round, solution.length, solution.rollout.id

    def random(solution: Solution) -> tuple[Any, ...]:
        # A hash instead of a generator: the choice is the same in every process and does not depend
        # on how many choices came before it.
        name = f"{seed}/{solution.step}/{solution.rollout.id}"
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass"))
        return digest.hexdigest(), solution.rollout.id

    orders: dict[Choice, Callable[[Solution], tuple[Any, ...]]]
    orders = {"shortest": shortest, "newest": newest, "random": random}
    return min(solutions, key=orders[rule])


def own_wins(attempts: Attempts, tasks: Sequence[Task], round: int) -> dict[str, list[Solution]]:
    """The policy's wins from s_0 in all rounds up to `round`, by the task's id."""
    rollouts = _forks.by_task(attempts.rollouts, tasks)
    return {
        task: [Solution(rollout=t) for t in found if t.win and not t.parent and t.round <= round]
        for task, found in rollouts.items()
    }


def select_expert_wins(
    attempts: Attempts, tasks: Sequence[Task], harmful: Collection[_forks.State] = ()
) -> list[Selection]:
    """Select the experts' wins, except actions that are labelled harmful.

    Args:
        attempts: all trajectories.
        tasks: the training tasks.
        harmful: expert actions to mask, each identified by the state that it leads to.
    """
    known = {task.id for task in tasks}
    selections = []
    for expert in attempts.experts:
        if expert.win and expert.task.id in known:
            reasons = tuple(
                MASKED_HARMFUL if _forks.state(expert, step + 1) in harmful else KEPT_EXPERT_WIN
                for step in range(expert.length)
            )
            selections.append(select(expert, reasons, EXPERT_WIN))
    return [selection for selection in selections if any(selection.weights)]


def select_experts(attempts: Attempts, tasks: Sequence[Task]) -> list[Selection]:
    """Select every action of every expert trajectory, failures included."""
    known = {task.id for task in tasks}
    return [
        select(expert, (KEPT_ALL,) * expert.length, EXPERT)
        for expert in attempts.experts
        if expert.length and expert.task.id in known
    ]


def select_solution(
    solution: Solution, role: str, harmful: Collection[_forks.State] = ()
) -> Selection:
    """Select the steps from a solution's state to the win; the steps before it are context.

    Args:
        solution: what to learn.
        role: part of the data set that it belongs to: `s0` or `recovery`.
        harmful: expert actions, each identified by the state that it leads to; named in the reasons
            of masked steps.
    """
    rollout = solution.rollout

    def reason(step: int) -> str:
        # Weight 1: the beneficial expert actions and the policy's winning suffix. Weight 0: all
        # steps before the important state.
        if step >= max(solution.step, rollout.fork_step):
            return KEPT_OWN_WIN
        if step >= solution.step:
            return KEPT_BENEFICIAL
        return MASKED_HARMFUL if _forks.state(rollout, step + 1) in harmful else MASKED_CONTEXT

    reasons = tuple(reason(step) for step in range(rollout.length))
    return select(rollout, reasons, role, solution.step)


def summarize(
    selections: Iterable[Selection],
    attempts: Attempts,
    tasks: Sequence[Task],
    round: int,
    states: int,
) -> dict[str, Any]:
    """JSON facts about a round for the report.

    Args:
        selections: the method's selections after the round.
        attempts: the trajectories that it selected from.
        tasks: the training tasks.
        round: number of the round.
        states: M, from which the number k of an expert state is computed.

    Returns:
        `yield`: for each expert state k (0: s_0) the number of rollouts of this round that were
        `played`, `completed` and `wins`; `examples`: selections by role; `steps`: steps by reason;
        `tasks`; `solved` and `share_solved` (0-1): tasks with at least one selected win;
        `solved_only_through_failure`: solved tasks without an expert win and without an own win
        from s_0 in any round so far.
    """
    selections = list(selections)
    solved = {s.trajectory.task.id for s in selections if s.trajectory.win}
    wins = {task for task, found in own_wins(attempts, tasks, round).items() if found}
    wins |= {expert.task.id for expert in attempts.experts if expert.win}
    return {
        "tasks": len(tasks),
        "solved": len(solved),
        "share_solved": len(solved) / len(tasks) if tasks else 0.0,
        "solved_only_through_failure": len(solved - wins),
        "examples": dict(sorted(Counter(s.role for s in selections).items())),
        "steps": dict(sorted(Counter(r for s in selections for r in s.reasons).items())),
        "yield": _yield_by_state(attempts, tasks, round, states),
    }


def _yield_by_state(
    attempts: Attempts, tasks: Sequence[Task], round: int, states: int
) -> dict[str, Mapping[str, int]]:
    lengths = {t.id: _forks.skip_length(t.length, states) for t in attempts.experts}
    rows: dict[int, Counter[str]] = {}
    for found in _forks.by_task(attempts.rollouts, tasks).values():
        for rollout in found:
            if rollout.round == round:
                k = rollout.fork_step // lengths[rollout.parent] if rollout.parent else 0
                row = rows.setdefault(k, Counter(played=0, completed=0, wins=0))
                row.update(played=1, completed=rollout.outcome.completed, wins=rollout.win)
    return {str(k): dict(rows[k]) for k in sorted(rows)}


def select(
    trajectory: Attempt,
    reasons: tuple[str, ...],
    role: str,
    state: int = 0,
    weight: float = 1.0,
    **fields: Any,
) -> Selection:
    """Select the steps of a trajectory whose reason is to keep them.

    Args:
        trajectory: what to learn.
        reasons: of each step.
        role: part of the data set that it belongs to.
        state: index of the state from which on steps are learned.
        weight: loss weight of the kept steps.
        **fields: further fields of the selection.
    """
    weights = tuple(weight * reason.startswith("kept") for reason in reasons)
    return Selection(
        trajectory=trajectory, weights=weights, reasons=reasons, role=role, state=state, **fields
    )


def select_own(rollout: Attempt, reason: str, role: str, weight: float = 1.0) -> Selection:
    """Select the policy's own steps of a rollout; an expert's before its fork are context."""
    own = rollout.length - rollout.fork_step
    reasons = (MASKED_CONTEXT,) * rollout.fork_step + (reason,) * own
    return select(rollout, reasons, role, rollout.fork_step, weight)
