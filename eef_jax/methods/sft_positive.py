"""SFT on the experts' wins: the behaviour cloning that iterated methods start from, as a method.

Plays no rollouts.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.methods import _solutions
from eef_jax.methods.base import Attempts
from eef_jax.types import Episode, Selection, Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SftPositive:
    """Supervised fine-tuning on expert wins."""

    name: str = dataclasses.field(default="sft_positive", init=False)
    rounds: int = dataclasses.field(default=0, init=False)

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        return ()

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        return _solutions.select_expert_wins(attempts, tasks)

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        return _solutions.summarize(
            self.select(attempts, tasks, round), attempts, tasks, round, states=0
        )


Config = SftPositive


def make(config: SftPositive) -> SftPositive:
    """The method; its config section is the method itself."""
    return config
