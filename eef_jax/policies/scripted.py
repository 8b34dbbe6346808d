"""A policy from a plain function of the conversation: scripted experts, baselines, tests."""

from collections.abc import Callable

from eef_jax.errors import PolicyError
from eef_jax.types import ChatRequest, Completion


class ScriptedPolicy:
    """Replies with what a function returns; its completions carry no token ids.

    Args:
        function: maps a request to a message. It runs in the event loop, so it must be fast.
        name: the agent's name in trajectories.
    """

    tokenizer = ""
    concurrency = 64

    def __init__(self, function: Callable[[ChatRequest], str], *, name: str):
        self.name = name
        self._function = function

    async def act(self, request: ChatRequest) -> Completion:
        """Return the function's message.

        Raises:
            PolicyError: the function raised.
        """
        try:
            return Completion(text=self._function(request))
        except Exception as error:
            raise PolicyError(
                f"policy {self.name!r} failed at turn {request.turn} of episode "
                f"{request.episode!r}: {type(error).__name__}: {error}"
            ) from error

    def finish(self, episode: str) -> None:
        """Do nothing: no state is held."""

    def spent(self) -> dict[str, float]:
        """Return {}: a function's messages cost nothing."""
        return {}

    async def close(self) -> None:
        """Do nothing: no resources are held."""
