"""RWR: reward-weighted regression on several attempts from each state, as W4S trains its agent.

"Weak-for-Strong: Training Weak Meta-Agent to Harness Strong Executors" (arXiv 2504.04785). Each
round plays several attempts from each state, and every completed attempt is learned by SFT with the
weight exp((reward - 1) / temperature): 1 for the maximal reward, less for others, never 0.

W4S plays from the states that its agent reaches, and goes on from the best of several attempts.
Here the states are s_0 and, with `states` above 0, those of expert trajectories that EEF would
explore. Left open for other tasks: the temperature, and whether earlier rounds' attempts are
learned again.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from eef_jax.config.fields import check, field
from eef_jax.methods import _forks, _solutions
from eef_jax.methods.base import Attempts
from eef_jax.types import KEPT_BY_REWARD, Episode, Selection, Task

ATTEMPT = "attempt"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rwr:
    """Reward-weighted regression, iterated, and its section of the config."""

    name: str = dataclasses.field(default="rwr", init=False)
    rounds: int = field(3, "explore-select-tune rounds after the clone", at_least=0)
    rollouts: int = field(5, "attempts from each state", at_least=1)
    temperature: float = field(0.4, "of the weights exp((reward - 1) / temperature)", above=0)
    learned: Literal["all", "newest"] = field(
        "all", "attempts of which rounds are learned: all so far, or the newest"
    )
    expert_wins: bool = field(True, "train on the expert's wins after round 0 as well")
    states: int = field(0, "states to play from in an expert trajectory, besides s_0", at_least=0)
    explore: _forks.Explore = field("failed", "expert trajectories whose states are played")

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
        selections: list[Selection] = []
        if self.expert_wins or round == 0:
            selections += _solutions.select_expert_wins(attempts, tasks)
        rounds = range(1 if self.learned == "all" else round, round + 1)
        for group in _forks.groups(attempts, tasks, rounds):
            for rollout in group:
                if rollout.length > rollout.fork_step:
                    weight = math.exp((rollout.reward - 1) / self.temperature)
                    selections.append(
                        _solutions.select_own(rollout, KEPT_BY_REWARD, ATTEMPT, weight)
                    )
        return selections

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        selections = self.select(attempts, tasks, round)
        return _solutions.summarize(selections, attempts, tasks, round, self.states)


Config = Rwr


def make(config: Rwr) -> Rwr:
    """The method; its config section is the method itself."""
    return config
