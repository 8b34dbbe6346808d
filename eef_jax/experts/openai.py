"""An expert behind an OpenAI-compatible server: GPT-4 as in the paper, or another served model.

It reads the environment's own prompt (`env.prompt`), as the policy does, and the instructions that
a prompt without any leaves out (`env.instructions`). Whose outputs a model may be tuned on is
decided by the server's terms of use: read them.
"""

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from eef_jax.config.fields import check, field
from eef_jax.envs.base import SupportsInstructions
from eef_jax.policies.base import Policy

if TYPE_CHECKING:
    from eef_jax.policies.openai import OpenAIPolicy

EXTRAS = ("openai",)
PAID = True  # its answers may cost money


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The section `expert` of a served model."""

    model: str = field("", "the model's name on the server; needed")
    base_url: str = field("", "address up to /v1; empty: OpenAI's", kind="free")
    key_variable: str = field(
        "OPENAI_API_KEY", "environment variable that holds the key", kind="free"
    )
    # None where it is the server's own: reasoning models, among others, refuse some of them.
    seed: int | None = field(0, "seed that is sent to the server; None: not sent")
    temperature: float | None = field(
        0.0, "sampling temperature; None: not sent, the server's own", at_least=0
    )
    top_p: float | None = field(
        None,
        "total probability of the tokens sampled from; None: not sent, the server's own",
        above=0,
        at_most=1,
    )
    max_new_tokens: int | None = field(
        512,
        "cap on a message's tokens, reasoning included; None: not sent, the server's own",
        unit="tokens",
        at_least=1,
    )
    stop: tuple[str, ...] = field((), "texts that end a message")
    timeout_s: float = field(120.0, "limit of one request", unit="seconds", above=0, kind="free")
    retries: int = field(5, "how often a failed request is repeated", at_least=0, kind="free")
    max_wait_s: float = field(
        600.0,
        "how long one message may wait for rate limits",
        unit="seconds",
        at_least=0,
        kind="free",
    )
    concurrency: int = field(32, "requests at once", at_least=1, kind="free")
    requests_per_minute: float = field(
        0.0, "requests are spaced to this rate; 0: no limit", at_least=0, kind="free"
    )
    input_price: float = field(
        0.0, "price of a million prompt tokens", unit="dollars", at_least=0, kind="free"
    )
    cached_price: float = field(
        0.0, "price of a million cached prompt tokens", unit="dollars", at_least=0, kind="free"
    )
    output_price: float = field(
        0.0, "price of a million generated tokens", unit="dollars", at_least=0, kind="free"
    )
    budget: float = field(
        0.0,
        "no request is sent after all starts of the stage together have spent this; 0: no limit",
        unit="dollars",
        at_least=0,
        kind="free",
    )

    def __post_init__(self) -> None:
        check(self, "expert")


def make(config: Config, *, env: Any = None) -> Policy:
    """Make the expert.

    Args:
        config: the server, how it is asked, and what it may cost.
        env: the environment it plays. Its `instructions`, if it has any, tell a model that was not
            tuned on the environment what to do and how to say it, where the prompt does not.
    """
    told = env.instructions if isinstance(env, SupportsInstructions) else ""
    return _policy(config, told)


def check_server(config: Config) -> None:
    """Ask the server for one short message, as an episode would.

    Args:
        config: the server and how it is asked.

    Raises:
        ConfigError: there is no key, or the package openai is not installed.
        PolicyError: the server cannot be reached, or refuses the key, the model or a field.
    """

    async def ask() -> None:
        policy = _policy(dataclasses.replace(config, retries=min(config.retries, 1)))
        try:
            await policy.check()
        finally:
            await policy.close()

    asyncio.run(ask())


def _policy(config: Config, instructions: str = "") -> "OpenAIPolicy":
    # Not at the top: the extra `openai` is needed for asking a server, not for reading a config.
    from eef_jax.policies.openai import OpenAIPolicy
    from eef_jax.policies.openai.server import Server

    names = {one.name for one in dataclasses.fields(Server)}
    terms = {
        one.name: getattr(config, one.name)
        for one in dataclasses.fields(config)
        if one.name in names
    }
    return OpenAIPolicy(
        Server(**terms),
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
        stop=config.stop,
        seed=config.seed,
        instructions=instructions,
    )
