"""EEF without the expert's beneficial actions: only what the policy did itself is learned.

The control that says what these actions are worth: it plays the same episodes, keeps the same wins,
and masks the expert's steps in them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.methods.base import Attempts
from eef_jax.methods.eef import Eef
from eef_jax.types import Episode, Selection, Task

MASKED = "masked: expert action"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnActions:
    """The method, which is also its section of the config."""

    name = "own_actions"
    rounds: int = 1

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        return self._eef().episodes(attempts, tasks, round, max_steps)

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        found = self._eef().select(attempts, tasks, round)
        return [one if one.trajectory.source == "expert" else own_steps(one) for one in found]

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        return self._eef().facts(attempts, tasks, round)

    def _eef(self) -> Eef:
        return Eef(rounds=self.rounds)


def own_steps(selection: Selection) -> Selection:
    """The selection with a weight of 0 on every step of the expert."""
    attempt = selection.trajectory  # its steps before the fork are the expert's
    expert = [step < attempt.fork_step for step in range(attempt.length)]
    return dataclasses.replace(
        selection,
        weights=tuple(0.0 if e else w for e, w in zip(expert, selection.weights, strict=True)),
        reasons=tuple(MASKED if e else r for e, r in zip(expert, selection.reasons, strict=True)),
    )


Config = OwnActions


def make(config: OwnActions) -> OwnActions:
    """The method of a run."""
    return config
