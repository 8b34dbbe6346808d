"""RFT: rejection-sampling fine-tuning on the experts' wins and the policy's own wins from s_0.

The baseline of the EEF paper (arXiv 2504.13145) and the control for its budget: `rollouts=6` is its
"RFT x6" (1 + M = 6 rollouts a task), and `rollouts="matched"` plays for each task exactly as many
episodes as EEF would. Rounds, repository of wins and tie-breaking are the same as EEF's.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from eef_jax.config.fields import check, field
from eef_jax.methods import _forks, _solutions
from eef_jax.methods.base import Attempts
from eef_jax.types import Episode, Selection, Task

# What comparisons run by these names: fields of the section.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "rft": {"rollouts": 1},
    "rft_x6": {"rollouts": 6},
    "rft_matched": {"rollouts": "matched"},
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rft:
    """Rejection-sampling fine-tuning, iterated, and its section of the config."""

    name: str = dataclasses.field(default="rft", init=False)
    rounds: int = field(3, "explore-select-tune rounds after the clone", at_least=0)
    rollouts: int | Literal["matched"] = field(
        1, "episodes a task from its start; matched: as many as EEF would play", at_least=1
    )
    choice: _solutions.Choice = field("shortest", "which of a task's own wins is kept")
    seed: int = field(0, "of choice=random alone", at_least=0)
    states: int = field(5, "M of the EEF run to match (rollouts=matched)", at_least=0)
    explore: _forks.Explore = field(
        "failed", "expert trajectories that the EEF run to match explores"
    )
    eef_rollouts: int = field(1, "K of the EEF run to match", at_least=1)

    def __post_init__(self) -> None:
        check(self, "method")

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        experts = _forks.by_task(attempts.experts, tasks)
        orders: list[Episode] = []
        for task in tasks:
            if self.rollouts == "matched":
                explored = _forks.starts(
                    experts[task.id], states=self.states, explore=self.explore, max_steps=max_steps
                )
                count = len(explored) * self.eef_rollouts
            else:
                count = self.rollouts
            orders += _forks.episodes(
                task, [_forks.FIRST], round=round, rollouts=count, max_steps=max_steps
            )
        return orders

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        selections = _solutions.select_expert_wins(attempts, tasks)
        for wins in _solutions.own_wins(attempts, tasks, round).values():
            if wins:
                best = _solutions.choose(wins, self.choice, self.seed)
                selections.append(_solutions.select_solution(best, _solutions.S0))
        return selections

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        selections = self.select(attempts, tasks, round)
        return _solutions.summarize(selections, attempts, tasks, round, self.states)


Config = Rft


def make(config: Rft) -> Rft:
    """The method; its config section is the method itself."""
    return config
