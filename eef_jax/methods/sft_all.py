"""SFT on all expert trajectories, failures included: what learning from failures blindly gives.

Knows steps and weights, no tokens. Plays nothing.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.methods import _solutions
from eef_jax.methods.base import Pool
from eef_jax.types import Episode, Selection, Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SftAll:
    """Supervised fine-tuning on every expert trajectory."""

    name: str = dataclasses.field(default="sft_all", init=False)
    rounds: int = dataclasses.field(default=0, init=False)

    def episodes(
        self, pool: Pool, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        return ()

    def select(self, pool: Pool, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        return _solutions.select_experts(pool, tasks)

    def facts(self, pool: Pool, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        return _solutions.summarize(self.select(pool, tasks, round), pool, tasks, round, states=0)


make = SftAll
