"""RFT: rejection-sampling fine-tuning on the experts' wins and the policy's own wins from s_0.

The baseline of the EEF paper (arXiv 2504.13145) and the control for its budget: `rollouts=6` is its
"RFT x6" (1 + M = 6 rollouts a task), and `rollouts="matched"` plays for each task exactly as many
episodes as EEF would. Rounds, repository of wins and tie-breaking are the same as EEF's.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.errors import ConfigError, check_at_least, check_one_of
from eef_jax.methods import _forks, _solutions
from eef_jax.methods.base import Attempts
from eef_jax.types import Episode, Selection, Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rft:
    """Rejection-sampling fine-tuning, iterated.

    Attributes:
        rounds: number of explore-select-tune rounds after behaviour cloning.
        rollouts: episodes from s_0 of each task (a number, also as text), or `matched` for as many
            as EEF plays.
        choice: the own win of a task that is kept: `shortest`, `newest` or `random`.
        seed: seed of `choice="random"`.
        states: with `matched`: M of the EEF run to match.
        explore: with `matched`: expert trajectories that the EEF run explores, `failed` or `all`.
        eef_rollouts: with `matched`: K of the EEF run.

    Raises:
        ConfigError: for a value that a field does not take.
    """

    name: str = dataclasses.field(default="rft", init=False)
    rounds: int = 3
    rollouts: int | str = 1
    choice: _solutions.Choice = "shortest"
    seed: int = 0
    states: int = 5
    explore: _forks.Explore = "failed"
    eef_rollouts: int = 1

    def __post_init__(self) -> None:
        number = str(self.rollouts)
        if number != "matched" and not (number.isdecimal() and int(number) > 0):
            raise ConfigError(
                f"method.rollouts is {self.rollouts!r}, expected a number of episodes a task from "
                "1 on, or 'matched'"
            )
        check_one_of("method.explore", self.explore, _forks.EXPLORE)
        check_one_of("method.choice", self.choice, _solutions.CHOICES)
        check_at_least("method.rounds", self.rounds, 0)
        check_at_least("method.states", self.states, 0)
        check_at_least("method.eef_rollouts", self.eef_rollouts, 1)

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
                count = int(self.rollouts)
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


make = Rft
