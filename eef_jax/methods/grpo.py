"""GRPO: policy gradient with advantages relative to a group of rollouts from one state.

"DeepSeekMath" (arXiv 2402.03300). Each round plays a group of rollouts from s_0 of every task; a
rollout's advantage is its reward less the group's mean, over the group's standard deviation. The
policy's own steps are learned by the clipped policy gradient (`train/losses/pg.py`), from the
weights that played, and of the newest round alone.

Fields for what later work changed: `scale=none` leaves the deviation out (Dr. GRPO, 2503.20783),
`clip_high` above `clip_low`, means over tokens and groups without a difference dropped (DAPO,
2503.14476). With `states` above 0 groups also start from the states of expert trajectories that EEF
would explore, at equal rollouts its control; the expert's steps before them are context. With
`tasks_per_round` a round is small, so that many rounds are the many updates of the paper.
"""

import dataclasses
import hashlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from eef_jax.config.fields import check, field
from eef_jax.methods import _forks, _solutions
from eef_jax.methods.base import Attempts
from eef_jax.types import KEPT_BY_ADVANTAGE, Attempt, Episode, Loss, Selection, Task

GROUP = "group"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Grpo:
    """Group-relative policy optimization, and its section of the config."""

    name: str = dataclasses.field(default="grpo", init=False)
    rounds: int = field(3, "explore-select-tune rounds after the clone", at_least=0)
    rollouts: int = field(8, "rollouts of a group", at_least=2)
    tasks_per_round: int = field(
        0, "train tasks of a round, in turn in a random order; 0: all", at_least=0
    )
    states: int = field(0, "states to play from in an expert trajectory, besides s_0", at_least=0)
    explore: _forks.Explore = field("failed", "expert trajectories whose states are played")
    reward: Literal["reward", "win"] = field(
        "reward", "what advantages are made of: the final reward, or 1 for a win and else 0"
    )
    scale: Literal["std", "none"] = field(
        "std", "what divides an advantage: its group's standard deviation, or nothing"
    )
    equal_groups: Literal["drop", "keep"] = field(
        "drop", "groups of equal rewards, whose advantages are 0; kept where there are no others"
    )
    clip_low: float = field(0.2, "how far a ratio below 1 has a gradient", above=0, at_most=1)
    clip_high: float = field(0.2, "how far a ratio above 1 has a gradient", above=0)
    normalization: Literal["token", "sequence"] = field(
        "token", "mean over a batch's tokens, or over its rollouts of the means over their tokens"
    )
    kl: float = field(
        0.0, "weight of the divergence from the base that the run starts from", at_least=0
    )
    expert_weight: float = field(
        0.0, "loss weight of the expert's wins, learned by likelihood as well", at_least=0
    )
    seed: int = field(0, "of the tasks' order", at_least=0)

    def __post_init__(self) -> None:
        check(self, "method")

    def loss(self, round: int) -> Loss:
        if not round:
            return Loss()
        names = ("clip_low", "clip_high", "normalization", "kl")
        return Loss(name="pg", options={name: getattr(self, name) for name in names})

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        experts = _forks.by_task(attempts.experts, tasks)
        orders: list[Episode] = []
        for task in self._tasks_of(tasks, round):
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
        groups = _forks.groups(attempts, tasks, [round])
        unequal = [group for group in groups if len({self._reward(x) for x in group}) > 1]
        if self.equal_groups == "drop" and unequal:
            groups = unequal
        selections = [selection for group in groups for selection in self._select_group(group)]
        if self.expert_weight:
            for selection in _solutions.select_expert_wins(attempts, tasks):
                weights = tuple(self.expert_weight * weight for weight in selection.weights)
                selections.append(dataclasses.replace(selection, weights=weights))
        return selections

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        selections = self.select(attempts, tasks, round)
        return _solutions.summarize(selections, attempts, tasks, round, self.states)

    def _tasks_of(self, tasks: Sequence[Task], round: int) -> list[Task]:
        """A round's tasks: every task has its turn before any has its next."""
        count = self.tasks_per_round
        if not 0 < count < len(tasks):
            return list(tasks)
        places = range((round - 1) * count, round * count)
        turns = {place // len(tasks) for place in places}
        orders = {turn: sorted(tasks, key=lambda t: self._shuffled(t, turn)) for turn in turns}
        # Between two turns a task may come twice.
        return list(dict.fromkeys(orders[p // len(tasks)][p % len(tasks)] for p in places))

    def _shuffled(self, task: Task, turn: int) -> str:
        return hashlib.sha256(f"{self.seed}/{turn}/{task.id}".encode()).hexdigest()

    def _reward(self, rollout: Attempt) -> float:
        return float(rollout.win) if self.reward == "win" else rollout.reward

    def _select_group(self, group: Sequence[Attempt]) -> list[Selection]:
        rewards = [self._reward(rollout) for rollout in group]
        mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
        scale = deviation if self.scale == "std" and deviation else 1.0
        selections = []
        for rollout, reward in zip(group, rewards, strict=True):
            if rollout.length > rollout.fork_step:
                advantage = (reward - mean) / scale
                own = rollout.length - rollout.fork_step
                selection = _solutions.select_own(rollout, KEPT_BY_ADVANTAGE, GROUP)
                advantages = (0.0,) * rollout.fork_step + (advantage,) * own
                selections.append(dataclasses.replace(selection, advantages=advantages))
        return selections


Config = Grpo


def make(config: Grpo) -> Grpo:
    """The method; its config section is the method itself."""
    return config
