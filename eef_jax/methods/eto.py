"""ETO: exploration-based trajectory optimization, DPO of a win against a failure of a task.

"Trial and Error: Exploration-Based Trajectory Optimization for LLM Agents" (arXiv 2403.02502).
After behaviour cloning each round plays every task from s_0, pairs each failure with a win of the
same task, and trains by DPO on whole trajectories. The reference, and the weights that a round
starts from, are those of the policy that played (`train.init_from=auto`).

The paper pairs with the expert's trajectory, and by the higher reward; here the preferred side won
and the other did not. It leaves open: which of several wins is taken (`choice`), and what is done
with tasks that the expert failed (`wins=any` takes the policy's own wins too). The paper's learning
rate of this phase is a hundredth to a tenth of the clone's; here both take `train.optimizer`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from eef_jax.config.fields import check, field
from eef_jax.methods import _forks, _solutions
from eef_jax.methods._solutions import Solution
from eef_jax.methods.base import Attempts
from eef_jax.types import KEPT_OTHER, KEPT_PREFERRED, Attempt, Episode, Loss, Selection, Task

_PREFERRED, _OTHER = "preferred", "other"  # roles of selections


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Eto:
    """Trajectory DPO, iterated, and its section of the config."""

    name: str = dataclasses.field(default="eto", init=False)
    rounds: int = field(3, "explore-select-tune rounds after the clone", at_least=0)
    rollouts: int = field(1, "episodes a task from its start", at_least=1)
    wins: Literal["expert", "any"] = field(
        "expert", "preferred sides: the expert's wins, or the policy's own as well"
    )
    choice: _solutions.Choice = field("shortest", "which of a task's wins is the preferred side")
    beta: float = field(0.1, "beta of DPO", above=0)
    seed: int = field(0, "of choice=random alone", at_least=0)

    def __post_init__(self) -> None:
        check(self, "method")

    def loss(self, round: int) -> Loss:
        return Loss(name="dpo", options={"beta": self.beta}) if round else Loss()

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        return [
            order
            for task in tasks
            for order in _forks.episodes(
                task, [_forks.FIRST], round=round, rollouts=self.rollouts, max_steps=max_steps
            )
        ]

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        if round == 0:
            return _solutions.select_expert_wins(attempts, tasks)
        wins = self._wins(attempts, tasks, round)
        selections: list[Selection] = []
        for task, rollouts in _forks.by_task(attempts.rollouts, tasks).items():
            if not wins[task]:
                continue
            best = _solutions.choose(wins[task], self.choice, self.seed).rollout
            for rollout in rollouts:
                # Only this round's failures: earlier ones are another policy's.
                failed = rollout.outcome.completed and not rollout.win
                if failed and rollout.round == round and rollout.length:
                    selections += _pair(best, rollout)
        return selections

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        selections = self.select(attempts, tasks, round)
        facts = _solutions.summarize(selections, attempts, tasks, round, states=0)
        return facts | {"pairs": sum(s.pair is not None for s in selections) // 2}

    def _wins(
        self, attempts: Attempts, tasks: Sequence[Task], round: int
    ) -> dict[str, list[Solution]]:
        found = {
            task: [Solution(rollout=expert) for expert in experts if expert.win]
            for task, experts in _forks.by_task(attempts.experts, tasks).items()
        }
        if self.wins == "any":
            for task, own in _solutions.own_wins(attempts, tasks, round).items():
                found[task] += own
        return found


def _pair(preferred: Attempt, other: Attempt) -> list[Selection]:
    """The two sides of a pair, named by the failure, of which each is in one pair."""
    return [
        _solutions.select(
            attempt,
            (reason,) * attempt.length,
            role,
            pair=other.id,
            advantages=(sign,) * attempt.length,
        )
        for attempt, reason, role, sign in (
            (preferred, KEPT_PREFERRED, _PREFERRED, 1.0),
            (other, KEPT_OTHER, _OTHER, -1.0),
        )
    ]


Config = Eto


def make(config: Eto) -> Eto:
    """The method; its config section is the method itself."""
    return config
