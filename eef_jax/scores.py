"""Win rate and mean reward of played episodes, each with a 95 % confidence interval."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eef_jax.types import Attempt

Z = 1.959964  # two-sided 95 % of the normal distribution


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Win rate and mean reward of completed episodes.

    Attributes:
        episodes: number of completed episodes, on which all other fields are based.
        left_out: number of episodes that ended in an infrastructure failure.
        win_rate: share of wins (0-1), with its Wilson interval.
        reward: mean final reward (0-1), with its normal interval.
        rewards: mean final reward in each convention that the environment names.
    """

    episodes: int
    left_out: int
    win_rate: float
    win_interval: tuple[float, float]
    reward: float
    reward_interval: tuple[float, float]
    rewards: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        low, high = self.win_interval
        down, up = self.reward_interval
        return (
            f"win rate {self.win_rate:.1%} [{low:.1%}, {high:.1%}], mean reward "
            f"{self.reward:.3f} [{down:.3f}, {up:.3f}], {self.episodes} episodes"
            + f" ({self.left_out} left out: infrastructure)"
            * bool(self.left_out)
        )


def score(trajectories: Iterable[Attempt]) -> Score:
    """Score episodes; a share of nothing is 0 with the interval (0, 1)."""
    everything = list(trajectories)
    played = [t for t in everything if t.outcome.completed]
    wins = sum(t.win for t in played)
    rewards = [t.reward for t in played]
    return Score(
        episodes=len(played),
        left_out=len(everything) - len(played),
        win_rate=wins / max(len(played), 1),
        win_interval=wilson_interval(wins, len(played)),
        reward=math.fsum(rewards) / max(len(rewards), 1),
        reward_interval=reward_interval(rewards),
        rewards=rewards_by_convention(played),
    )


def rewards_by_convention(played: Sequence[Attempt]) -> dict[str, float]:
    """Mean final reward in each convention that steps name in `info["rewards"]`; 0 without steps.

    A step tells what the episode is worth up to it: with ScienceWorld the score as it stands
    (`final`) and the highest one so far (`best`).
    """
    last = [attempt.rewards for attempt in played]
    names = sorted({name for found in last for name in found})
    return {n: math.fsum(found.get(n, 0.0) for found in last) / len(last) for n in names}


def by_tag(trajectories: Sequence[Attempt]) -> dict[str, Score]:
    """Scores of the tasks that carry each tag, in the tags' order."""
    tags = sorted({tag for t in trajectories for tag in t.task.tags})
    return {tag: score(t for t in trajectories if tag in t.task.tags) for tag in tags}


def score_summary(trajectories: Sequence[Attempt]) -> dict[str, Any]:
    """Scores in all and by tag as JSON values."""
    scores = {"all": score(trajectories), **by_tag(trajectories)}
    return {name: dataclasses.asdict(value) for name, value in scores.items()}


def score_from_json(fields: Mapping[str, Any]) -> Score:
    """A score from its JSON values."""
    intervals = {k: tuple(fields[k]) for k in ("win_interval", "reward_interval")}
    return Score(**{**fields, **intervals})


def wilson_interval(wins: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (E. B. Wilson, JASA 22, 1927)."""
    if not count:
        return 0.0, 1.0
    share, square = wins / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Normal 95 % interval of a mean."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 1.0)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = Z * math.sqrt(variance / len(values))
    return mean - half, mean + half


def reward_interval(rewards: Sequence[float]) -> tuple[float, float]:
    """Normal 95 % interval of a mean reward, cut to the range of rewards (0-1)."""
    low, high = mean_interval(rewards)
    return max(0.0, low), min(1.0, high)


def paired_difference(
    left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]
) -> tuple[float, float, float]:
    """Mean difference of two methods over the same tasks, with its 95 % interval.

    Args:
        left: for each seed, one value for each task.
        right: for each seed, one value for each task; same tasks in the same order as `left`, but
            possibly other seeds.

    Returns:
        mean(left) - mean(right) and the interval's ends; a task's values are averaged over seeds
        first, so that the tasks are the independent units.
    """
    mean_left = [math.fsum(column) / len(column) for column in zip(*left, strict=True)]
    mean_right = [math.fsum(column) / len(column) for column in zip(*right, strict=True)]
    differences = [a - b for a, b in zip(mean_left, mean_right, strict=True)]
    low, high = mean_interval(differences)
    return math.fsum(differences) / len(differences), low, high
