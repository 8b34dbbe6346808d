"""Where episodes start: a task's first state, and the states of an expert's trajectory.

For an expert trajectory of T actions and M states to explore, the skip length is
l = max(1, floor(T / (M + 1))) and the states are s_l, s_2l, ..., s_Ml, as far as k l < T and k l is
below the step cap (so T = 11, M = 5 explores states 1 to 5 and leaves 6 to 10 alone). Shared by
every method that plays such states or counts them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from eef_jax.methods.base import Attempts
from eef_jax.types import Attempt, Episode, Task

Explore = Literal["failed", "all"]

# A state as the policy sees it: the task's id and a digest of all messages before it. Two experts
# whose first messages are equal share their first states, which are then explored only once.
State = tuple[str, bytes]
# Where an episode starts: the trajectory whose first actions are replayed, and how many of them.
Start = tuple[Attempt | None, int]
FIRST: Start = (None, 0)


def skip_length(actions: int, states: int) -> int:
    """Number of expert actions from one explored state to the next."""
    return max(1, actions // (states + 1))


def fork_steps(actions: int, states: int, max_steps: int | None = None) -> tuple[int, ...]:
    """The steps of an expert trajectory at which episodes start, s_0 left out.

    Args:
        actions: T, the number of the expert's actions.
        states: M, the number of states to explore.
        max_steps: cap on an episode's actions; None where the cap has been applied already.

    Returns:
        l, 2 l, ..., at most `states` of them, each below `actions` and `max_steps`.
    """
    # The paper's rule: states s_l, s_2l, ..., s_Ml with l = max(1, floor(T / (M + 1))). Rounding
    # down leaves the end of a trajectory unexplored (T = 11, M = 5 stops at state 5).
    length = skip_length(actions, states)
    end = actions if max_steps is None else min(actions, max_steps)
    return tuple(k * length for k in range(1, states + 1) if k * length < end)


def state(trajectory: Attempt, step: int) -> State:
    """The state after a trajectory's first `step` actions."""
    return trajectory.task.id, trajectory.prefix(step)


def by_task(trajectories: Iterable[Attempt], tasks: Sequence[Task]) -> dict[str, list[Attempt]]:
    """Group trajectories by task id; trajectories of other tasks are left out."""
    found: dict[str, list[Attempt]] = {task.id: [] for task in tasks}
    for trajectory in trajectories:
        if trajectory.task.id in found:
            found[trajectory.task.id].append(trajectory)
    return found


def explored(experts: Iterable[Attempt], explore: Explore) -> list[Attempt]:
    """The experts' trajectories to explore: completed failures, or all completed trajectories."""
    # Infrastructure errors (a timeout, a crash) say nothing about the expert's actions.
    return [t for t in experts if t.outcome.completed and (explore == "all" or not t.win)]


def starts(
    experts: Iterable[Attempt], *, states: int, explore: Explore, max_steps: int
) -> tuple[Start, ...]:
    """All states of one task to start episodes from, s_0 first; equal prefixes count once.

    Args:
        experts: the experts' trajectories on the task, in a fixed order.
        states: M, the number of states to explore in each trajectory.
        explore: which trajectories to explore: `failed` or `all`.
        max_steps: cap on an episode's actions, replayed actions included.
    """
    found: dict[State, Start] = {}
    for expert in explored(experts, explore):
        cap = expert.task.cap(max_steps)
        for step in fork_steps(expert.length, states, cap):
            found.setdefault(state(expert, step), (expert, step))
    return FIRST, *found.values()


def episodes(
    task: Task, starts: Iterable[Start], *, round: int, rollouts: int, max_steps: int
) -> list[Episode]:
    """Create K = `rollouts` episodes from each of `starts`.

    Args:
        task: the task to play.
        starts: states to start from.
        round: the round they are played in; part of their ids.
        rollouts: K, the number of episodes from each state.
        max_steps: the run's cap on an episode's actions, replayed actions included.
    """
    orders: list[Episode] = []
    for parent, step in starts:
        origin = f"{parent.id}@{step}" if parent else "s0"
        for number in range(rollouts):
            order = Episode(
                id=f"round_{round}/{task.id}/{origin}/{number}",
                task=task,
                round=round,
                # Numbered over all starts: (task, attempt) seeds sampling, so no two episodes of a
                # task sample the same random numbers.
                attempt=len(orders),
                max_steps=task.cap(max_steps),
                parent=parent,
                fork_step=step,
            )
            orders.append(order)
    return orders


def origin(rollout: Attempt, experts: Mapping[str, Attempt]) -> State:
    """The state that a rollout started from."""
    # Taken from the parent: a rollout that diverged during the replay lacks some of the steps.
    if rollout.parent is None:
        return rollout.task.id, b""
    return state(experts[rollout.parent], rollout.fork_step)


def groups(attempts: Attempts, tasks: Sequence[Task], rounds: Iterable[int]) -> list[list[Attempt]]:
    """The completed rollouts of each state in each of some rounds, without those of other tasks."""
    experts = {expert.id: expert for expert in attempts.experts}
    rounds, known = set(rounds), {task.id for task in tasks}
    found: dict[tuple[int, State], list[Attempt]] = {}
    for rollout in attempts.rollouts:
        if rollout.round in rounds and rollout.task.id in known and rollout.outcome.completed:
            found.setdefault((rollout.round, origin(rollout, experts)), []).append(rollout)
    return list(found.values())
