"""The method protocol: the science of what to play and what to learn, in steps, never in tokens.

A method is one module in `eef_jax/methods/` that exports `make(**section) -> Method`, called with
the
config's `method` section less its `name`. Its variants are fields of that section.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from eef_jax.types import Episode, Selection, Task, Trajectory


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """All attempts a method may look at, in a fixed order.

    Attributes:
        experts: the experts' trajectories.
        rollouts: the policy's own, of all rounds so far (`Trajectory.round` tells which).
    """

    experts: tuple[Trajectory, ...]
    rollouts: tuple[Trajectory, ...] = ()


class Method(Protocol):
    """What to explore in a round and what to train on after it.

    Round 0 is the clone: nothing is played, `select` sees the experts alone.
    """

    name: str
    rounds: int  # number of explore-select-tune rounds after the clone

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        """What to play in `round` (from 1 on), a pure function of its arguments."""
        ...

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        """What to train on after `round`, a pure function of its arguments."""
        ...

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        """JSON facts for the report: yield by state, tasks solved only through a failure, ..."""
        ...
