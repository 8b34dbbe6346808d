"""A policy from a plain function of the conversation: scripted experts, baselines, tests.

Knows nothing of tokens; its answers carry none.
"""

from collections.abc import Callable

from eef_jax.errors import PolicyError
from eef_jax.types import ChatRequest, Completion


class ScriptedPolicy:
    """Speaks what a function says.

    Args:
        function: from a request to a message. It runs in the event loop, so it must be quick.
        name: the agent's name in trajectories.
    """

    tokenizer = ""
    concurrency = 64

    def __init__(self, function: Callable[[ChatRequest], str], *, name: str):
        self.name = name
        self._function = function

    async def act(self, request: ChatRequest) -> Completion:
        """Answer a conversation (see `policies.base.Policy`)."""
        try:
            return Completion(text=self._function(request))
        except Exception as error:
            raise PolicyError(
                f"policy {self.name!r} failed at turn {request.turn} of episode "
                f"{request.episode!r}: {type(error).__name__}: {error}"
            ) from error

    def finish(self, episode: str) -> None:
        """Keep nothing, forget nothing."""

    def spent(self) -> dict[str, float]:
        """A function's answers are free."""
        return {}

    async def close(self) -> None:
        """Hold nothing, free nothing."""
