"""The method protocol: which episodes to play and which steps of them to learn.

Operates on steps, not on tokens: `data.encode` turns the selected steps into weighted tokens. A
method is one module in `eef_jax/methods/` that exports `Config`, its section of the config, and
`make(config) -> Method`. Its variants are fields of that section; those that comparisons run have
names in `VARIANTS`, a mapping to the fields they set (without it: the method by its own name).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from eef_jax.types import Attempt, Episode, Loss, Selection, Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """All attempts that a method may use, in a fixed order; their steps are read by `load`.

    Attributes:
        experts: the experts' attempts.
        rollouts: the policy's attempts of all rounds so far (see `Attempt.round`).
    """

    experts: tuple[Attempt, ...]
    rollouts: tuple[Attempt, ...] = ()


class Method(Protocol):
    """What to explore in a round and what to train on after it.

    Round 0 is behaviour cloning: nothing is played, and `select` gets only the experts. All methods
    are pure functions of their arguments, so that an interrupted run computes them again.
    """

    name: str
    rounds: int  # number of explore-select-tune rounds after the clone

    def episodes(
        self, attempts: Attempts, tasks: Sequence[Task], round: int, max_steps: int
    ) -> Sequence[Episode]:
        """The episodes to play in `round` (from 1 on).

        Args:
            attempts: the trajectories of all earlier rounds.
            tasks: the training tasks.
            round: number of the round.
            max_steps: the run's cap on an episode's actions.
        """
        ...

    def select(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Sequence[Selection]:
        """The steps to train on after `round`, as weights with reasons.

        Args:
            attempts: the trajectories of all rounds up to this one.
            tasks: the training tasks.
            round: number of the round; 0 selects the data of behaviour cloning.
        """
        ...

    def facts(self, attempts: Attempts, tasks: Sequence[Task], round: int) -> Mapping[str, Any]:
        """Facts about a round for the report, as JSON values (see `_solutions.summarize`)."""
        ...


@runtime_checkable
class SupportsLoss(Protocol):
    """A method that does not learn every round by SFT (optional)."""

    def loss(self, round: int) -> Loss:
        """The loss of a round's selections; 0 is the clone."""
        ...


@runtime_checkable
class SupportsMark(Protocol):
    """A method whose policy plays with a mark before the conversation (optional).

    Attributes:
        mark: the mark, see `types.mark_messages`; attempts are stored without it.
    """

    mark: str


def loss_of(method: Method, round: int) -> Loss:
    """The loss that a method's round is learned with."""
    return method.loss(round) if isinstance(method, SupportsLoss) else Loss()


def mark_of(method: Method) -> str:
    """The mark that a method's tuned policy plays with; "" without one."""
    return method.mark if isinstance(method, SupportsMark) else ""
