"""The policy protocol: a conversation in, one message out. Batching is the policy's own affair."""

from typing import Protocol

from eef_jax.types import ChatRequest, Completion


class Policy(Protocol):
    """Anything that can speak next: a local model, a served one, a script."""

    name: str
    tokenizer: str  # fingerprint of the tokenizer behind `Completion.tokens`, "" without one
    concurrency: int  # conversations that it serves at once without one waiting for another

    async def act(self, request: ChatRequest) -> Completion:
        """Answer a conversation.

        Raises:
            PolicyError: when no answer can be had (the episode's outcome is then `policy_error`).
        """
        ...

    def finish(self, episode: str) -> None:
        """Forget what is kept for a conversation (its KV cache); unknown ids are fine."""
        ...

    def spent(self) -> dict[str, float]:
        """What its answers have taken since it was made, as JSON values; {} if nothing counts."""
        ...

    async def close(self) -> None:
        """Free everything; closing twice is fine."""
        ...
