"""An expert behind an OpenAI-compatible server: GPT-4 as in the paper, or another served model.

It reads the environment's own prompt (`env.prompt`), as the policy does. Whose outputs a model may
be tuned on is decided by the server's terms of use: read them.
"""

import dataclasses
from typing import Any

from eef_jax.config.fields import check, field
from eef_jax.policies.base import Policy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The section `expert` of a served model."""

    model: str = field("", "the model's name on the server; needed")
    base_url: str = field("", "address up to /v1; empty: OpenAI's", kind="free")
    key_variable: str = field(
        "OPENAI_API_KEY", "environment variable that holds the key", kind="free"
    )
    seed: int = field(0, "seed that is sent to the server")
    send_seed: bool = field(True, "send the seed; some servers refuse it")
    temperature: float = field(0.0, "sampling temperature", at_least=0)
    top_p: float = field(1.0, "total probability of the tokens sampled from", above=0, at_most=1)
    max_new_tokens: int = field(512, "cap on a message's tokens", unit="tokens", at_least=1)
    stop: tuple[str, ...] = field((), "texts that end a message")
    timeout_s: float = field(120.0, "limit of one request", unit="seconds", above=0, kind="free")
    retries: int = field(5, "how often a request is repeated", at_least=0, kind="free")
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
        "no request is sent after this is spent; 0: no limit",
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
        env: not used: the model words its messages itself.
    """
    # Not at the top: the extra `openai` is needed for asking a server, not for reading a config.
    from eef_jax.policies.openai import OpenAIPolicy, Server

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
        seed=config.seed if config.send_seed else None,
    )
