"""NAT: negative-aware training on an expert's wins and failures, told apart by a mark.

"Learning From Failure: Integrating Negative Examples when Fine-tuning Large Language Models as
Agents" (arXiv 2402.11651). Every completed expert attempt is learned by SFT. The first user message
of a win begins with one mark, that of a failure with another; the policy plays with the mark of
wins, so the other one never reaches a rollout or an evaluation. Plays no rollouts.

The paper's words ask a question answerer for a correct or an incorrect solution. It leaves open for
agents: the words (`mark`, `failure_mark`), where they stand, and what a failure weighs next to a
win. Its variant with several grades of failure is not here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.config.fields import check, field
from eef_jax.errors import ConfigError
from eef_jax.methods import _solutions
from eef_jax.methods.base import Attempts
from eef_jax.types import KEPT_EXPERT_WIN, KEPT_FAILURE, Episode, Selection, Task

EXPERT_FAILURE = "expert_failure"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """Negative-aware training, and its section of the config."""

    name: str = dataclasses.field(default="nat", init=False)
    rounds: int = dataclasses.field(default=0, init=False)
    mark: str = field(
        "Give actions that solve the task.",
        "first line of the first user message of wins, and of all that the policy plays",
    )
    failure_mark: str = field(
        "Give actions that do not solve the task.",
        "first line of the first user message of failures",
    )
    failure_weight: float = field(1.0, "loss weight of failures next to 1 of wins", above=0)

    def __post_init__(self) -> None:
        check(self, "method")
        if self.mark == self.failure_mark:
            raise ConfigError(
                f"method.mark and method.failure_mark are both {self.mark!r}: the marks tell wins "
                "from failures, so they must differ"
            )

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        return ()

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        known = {task.id for task in tasks}
        selections = []
        for expert in attempts.experts:
            if not (expert.length and expert.outcome.completed and expert.task.id in known):
                continue
            reason = KEPT_EXPERT_WIN if expert.win else KEPT_FAILURE
            selection = _solutions.select(
                expert,
                (reason,) * expert.length,
                _solutions.EXPERT_WIN if expert.win else EXPERT_FAILURE,
                weight=1.0 if expert.win else self.failure_weight,
                mark=self.mark if expert.win else self.failure_mark,
            )
            selections.append(selection)
        return selections

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        return _solutions.summarize(
            self.select(attempts, tasks, round), attempts, tasks, round, states=0
        )


Config = Nat


def make(config: Nat) -> Nat:
    """The method; its config section is the method itself."""
    return config
