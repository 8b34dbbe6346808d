"""Why a server did not complete a request, in a sentence that says what to do."""

from collections.abc import Mapping
from typing import Any

from eef_jax.policies.openai.pace import Attempt
from eef_jax.policies.openai.replies import Refusal
from eef_jax.policies.openai.server import Server

# Sampling fields as servers name them -> how a config leaves them out.
_LEFT_OUT = {
    "temperature": "temperature=None",
    "top_p": "top_p=None",
    "seed": "seed=None",
    "stop": "stop=",
    "max_tokens": "max_new_tokens=None",
    "max_completion_tokens": "max_new_tokens=None",
}
_BASE_URL = "is base_url right? It ends in /v1 as a rule"


def explain(refusal: Refusal, server: Server, attempt: Attempt, sampling: Mapping[str, Any]) -> str:
    """Explain a refusal.

    Args:
        refusal: the last one.
        server: who refused.
        attempt: what was tried before.
        sampling: the sampling fields by the names that were sent; None: not sent.
    """
    where, said = server.where, refusal.message
    match refusal.kind:
        case "key":
            return f"{where} refuses the key in ${server.key_variable}: {said}"
        case "credit":
            return f"{where} has no credit left for the key in ${server.key_variable}: {said}"
        case "model":
            return (
                f"{where} has no model {server.model!r}, or the address is wrong ({said}): "
                f"{_BASE_URL}"
            )
        case "page":
            return (
                f"{where} answered {refusal.status} with {said}, expected a chat completion: "
                f"{_BASE_URL}"
            )
        case "filter":
            return f"{where} filtered the conversation or its answer: {said}"
        case "busy":
            wait = "" if refusal.wait_s is None else f" for {refusal.wait_s:.0f} s more"
            return (
                f"{where} is busy{wait} ({refusal.status}: {said}) after {attempt.waited:.0f} s of "
                f"waiting, of max_wait_s={server.max_wait_s:g}: raise it, or lower concurrency or "
                "requests_per_minute"
            )
        case "request":
            return f"{where} answered {refusal.status}: {said}{_remedy(said, sampling)}"
    if refusal.status:
        return f"{where} answered {refusal.status}, asked {attempt.sent} times: {said}"
    return (
        f"{where} {said}, asked {attempt.sent} times: is base_url right, and the server up? If it "
        "is slow, raise timeout_s or lower concurrency"
    )


def _remedy(message: str, sampling: Mapping[str, Any]) -> str:
    """How to leave out the fields that a server's words name."""
    named = [
        remedy
        for name, remedy in _LEFT_OUT.items()
        if sampling.get(name) is not None and name in message
    ]
    return f"; to leave it out: {' or '.join(named)}" if named else ""
