"""SFT on all expert trajectories, failures included, without telling good actions from bad ones.

Plays no rollouts: the control that shows what whole failures teach.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.methods import _solutions
from eef_jax.methods.base import Attempts
from eef_jax.types import Episode, Selection, Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SftAll:
    """Supervised fine-tuning on every expert trajectory."""

    name: str = dataclasses.field(default="sft_all", init=False)
    rounds: int = dataclasses.field(default=0, init=False)

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        return ()

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        return _solutions.select_experts(attempts, tasks)

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        return _solutions.summarize(
            self.select(attempts, tasks, round), attempts, tasks, round, states=0
        )


Config = SftAll


def make(config: SftAll) -> SftAll:
    """The method; its config section is the method itself."""
    return config
