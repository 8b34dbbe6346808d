"""An expert behind an OpenAI-compatible server: GPT-4 as in the paper, or a model of one's own.

It is spoken to in the environment's own prompt (`env.prompt`), as the policy is.
"""

from collections.abc import Callable, Sequence

from eef_jax.policies.base import Policy
from eef_jax.policies.openai import OpenAIPolicy, Server


def make(
    *,
    render: Callable[[str], str],
    model: str,
    base_url: str = "",
    key_variable: str = "OPENAI_API_KEY",
    seed: int = 0,
    send_seed: bool = True,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int = 512,
    stop: Sequence[str] = (),
    timeout_s: float = 120.0,
    retries: int = 5,
    concurrency: int = 32,
    requests_per_minute: float = 0.0,
    input_price: float = 0.0,
    cached_price: float = 0.0,
    output_price: float = 0.0,
    budget: float = 0.0,
) -> Policy:
    """Make the expert; arguments are the fields of `policies.openai.Server` and `OpenAIPolicy`.

    Args:
        render: not used: the model words its messages itself.
        model: see `Server`, as all that is not said here.
        base_url: likewise.
        key_variable: likewise.
        seed: see `OpenAIPolicy`.
        send_seed: whether the server is told; some refuse it.
        temperature: see `OpenAIPolicy`.
        top_p: likewise.
        max_new_tokens: likewise.
        stop: likewise.
        timeout_s: see `Server`.
        retries: likewise.
        concurrency: likewise.
        requests_per_minute: likewise.
        input_price: likewise.
        cached_price: likewise.
        output_price: likewise.
        budget: likewise.
    """
    server = Server(
        model=model,
        base_url=base_url,
        key_variable=key_variable,
        timeout_s=timeout_s,
        retries=retries,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        input_price=input_price,
        cached_price=cached_price,
        output_price=output_price,
        budget=budget,
    )
    return OpenAIPolicy(
        server,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        stop=tuple(stop),
        seed=seed if send_seed else None,
    )
