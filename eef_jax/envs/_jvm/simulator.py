"""The protocol that an environment implements to run a Java simulator in the pool."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from eef_jax.types import Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorStatus:
    """What a simulator reports about its current state, apart from the observation.

    Attributes:
        score: the simulator's own score, at most 1; negative once the task has failed for good.
        terminated: whether the task is over, won or lost.
        truncated: whether the simulator's own limits are reached.
        info: further facts, JSON values only.
    """

    score: float
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Simulator(Protocol):
    """A simulator in its own JVM.

    Equal tasks and actions must give equal observations in every JVM, because episodes are restored
    by replay. Every method may raise `JvmLost`, or `EnvError` if the simulator itself fails.
    """

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the JVM is running."""
        ...

    def start(self, task: Task) -> str:
        """Start a task from any state and return the first observation."""
        ...

    def act(self, action: str) -> str:
        """Perform an action and return the observation. A replay calls only `start` and this."""
        ...

    def status(self) -> SimulatorStatus:
        """Return the score and the end-of-episode flags; must not change the state."""
        ...

    def admissible(self) -> list[str]:
        """Return the actions that are possible now; must not change the state."""
        ...

    def close(self) -> None:
        """Stop the JVM. Idempotent."""
        ...
