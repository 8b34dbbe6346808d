"""The environment protocol: a text simulator, its prompt and its action grammar.

An environment is one module (or package) in `eef_jax/envs/` that exports `Config`, its section of
the config, and `make(config) -> Env`. Environments operate on text; tokens and models live in
`text/` and `models/`. Every one is run through `tests/envs/test_conformance.py`.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from eef_jax.types import Message, Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one action led to (Gymnasium's vocabulary).

    Attributes:
        observation: text the agent reads next.
        reward: what this step adds to the episode's reward, whose sum is 0-1; below 0 where it
            takes back what earlier steps were paid.
        terminated: the task ended by itself (a purchase, a win, a loss).
        truncated: the simulator stopped it (its own limits; the loop's step cap is not the
            simulator's).
        info: JSON values only.
    """

    observation: str
    reward: float
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def observation_fingerprint(observation: str) -> str:
    """Hash an observation to 16 hex digits, for logs that keep actions but not observations."""
    # surrogatepass: product titles hold unpaired surrogates, which plain UTF-8 refuses.
    return hashlib.sha256(observation.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Game(Protocol):
    """One running episode; many live side by side over one environment's shared data.

    Equal tasks and actions must give equal observations and rewards in every game: a call that
    fails is repeated on a fresh game, brought to the episode's state by its actions.
    """

    def reset(self, task: Task) -> str:
        """Start `task` and return the first observation."""
        ...

    def step(self, action: str) -> StepResult:
        """Do `action`; an action the state does not allow is a no-op, never an exception."""
        ...

    def save(self) -> Any:
        """Return a snapshot in O(1), or raise `NotImplementedError`: then forks replay actions."""
        ...

    def restore(self, state: Any) -> None:
        """Go back to a snapshot made by `save` of any game of the same environment."""
        ...

    def close(self) -> None:
        """Free what the episode holds; closing twice is fine."""
        ...


@runtime_checkable
class SupportsReplay(Protocol):
    """A game that plays several actions more cheaply in one call (optional)."""

    def replay(self, actions: Sequence[str]) -> list[StepResult]:
        """Do actions one after the other, up to the task's end: a result for each one done."""
        ...


def replay(game: Game, actions: Sequence[str]) -> list[StepResult]:
    """Do actions one after the other, up to the task's end, the way the game does it best."""
    if isinstance(game, SupportsReplay):
        return game.replay(actions)
    results: list[StepResult] = []
    for action in actions:
        results.append(result := game.step(action))
        if not isinstance(result, StepResult) or result.terminated or result.truncated:
            break
    return results


@runtime_checkable
class SupportsInstructions(Protocol):
    """An environment that has words for agents that were not tuned on it (optional).

    Attributes:
        instructions: what to do and how to say an action, where `prompt` does not tell; "" where it
            does. They are for served models: not recorded, and not what is trained on.
    """

    instructions: str


class Env(Protocol):
    """A text environment: its tasks, its way of talking to an agent, and new games."""

    name: str
    max_steps: int  # default cap on an agent's actions; a task may have a lower one
    dataset_id: str  # hash of everything that decides tasks, observations and rewards

    def tasks(self, split: str) -> Sequence[Task]:
        """All tasks of a split (`train`, `dev`, `test`) in a fixed order."""
        ...

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """Messages before the first observation (may be empty)."""
        ...

    def parse(self, message: str) -> str | None:
        """The action in an agent's message, or None where there is none."""
        ...

    def render(self, action: str, thought: str = "") -> str:
        """A message that `parse` turns into `action` (how an expert's bare actions are said).

        Args:
            action: the action.
            thought: why it is done; prompts whose messages hold no thoughts leave it out.
        """
        ...

    def invalid(self, message: str) -> str:
        """Observation shown after a message without an action (it costs a step)."""
        ...

    def is_win(self, reward: float) -> bool:
        """Whether a final reward is maximal."""
        ...

    def game(self) -> Game:
        """A new game over the shared data: O(1) in the size of the data."""
        ...

    def close(self) -> None:
        """Free everything; closing twice is fine."""
        ...


@runtime_checkable
class SupportsImport(Protocol):
    """An environment that finds the task of somebody else's trajectory (optional).

    Without it an import compares tasks' goals with what an agent read, and observations as the
    run's own prompt shows them.
    """

    def find_tasks(self, text: str) -> Sequence[Task]:
        """Tasks whose first observation may be in `text`, as they are to be played."""
        ...

    def plain(self) -> Env:
        """The same environment, with the observations of the original's plain text."""
        ...
