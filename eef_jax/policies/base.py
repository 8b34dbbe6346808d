"""The policy protocol: maps a conversation to the next assistant message.

Batching is the policy's responsibility.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from eef_jax.types import ChatRequest, Completion


class Policy(Protocol):
    """A local model, a served one, or a script.

    Attributes:
        name: the agent's name in trajectories.
        tokenizer: fingerprint of the tokenizer of `Completion.tokens`; "" without one.
        concurrency: conversations that it serves at once without queueing.
    """

    name: str
    tokenizer: str
    concurrency: int

    async def act(self, request: ChatRequest) -> Completion:
        """Return the next assistant message.

        Args:
            request: the conversation and its place in the run.

        Raises:
            PolicyError: no message could be generated; the episode's outcome is then
                `policy_error`.
        """
        ...

    def finish(self, episode: str) -> None:
        """Release what is held for an episode, such as its KV cache; unknown ids are ignored."""
        ...

    def spent(self) -> dict[str, float]:
        """Return the costs since it was made, by name, as JSON values; {} if there are none."""
        ...

    async def close(self) -> None:
        """Release all resources; closing twice is fine."""
        ...


@runtime_checkable
class SupportsBudget(Protocol):
    """A policy that asks for no more once a budget is spent."""

    def charge(self, spent: Mapping[str, float]) -> None:
        """Count what earlier starts of the stage have spent, in the terms of `Policy.spent`."""
        ...
