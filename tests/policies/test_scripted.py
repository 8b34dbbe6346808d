"""The scripted policy: returns its function's message and explains failures."""

import asyncio

import pytest

from eef_jax.errors import PolicyError
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.types import ChatRequest, Message

REQUEST = ChatRequest(
    episode="e7",
    messages=(Message(role="user", content="hello"),),
    tokens=((),),
    turn=0,
    attempt=0,
    task="t",
)


def test_it_returns_its_functions_message():
    policy = ScriptedPolicy(lambda r: r.messages[-1].content.upper(), name="loud")
    completion = asyncio.run(policy.act(REQUEST))
    assert (completion.text, completion.tokens, policy.tokenizer) == ("HELLO", (), "")
    policy.finish("unknown")
    asyncio.run(policy.close())


def test_a_failing_function_is_a_policy_error():
    policy = ScriptedPolicy(lambda r: r.messages[1].content, name="broken")
    with pytest.raises(PolicyError, match=r"'broken' failed at turn 0 of episode 'e7': IndexError"):
        asyncio.run(policy.act(REQUEST))
