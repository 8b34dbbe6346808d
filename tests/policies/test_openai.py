"""The served policy: what it sends, how it reads responses, and when it fails."""

import asyncio
import dataclasses
import time

import pytest

from eef_jax.errors import ConfigError, PolicyError
from eef_jax.experts import openai as openai_expert
from eef_jax.policies.openai import OpenAIPolicy, Server
from eef_jax.rollout import loop
from eef_jax.types import ChatRequest, Episode, Message, Outcome
from tests.policies.chatserver import refusal, reply, serve
from tests.toygame import Corridor

REQUEST = ChatRequest(
    episode="e",
    messages=(Message(role="user", content="hello"),),
    tokens=((),),
    turn=0,
    attempt=0,
    task="t",
)


@pytest.fixture
def server():
    with serve() as started:
        yield started


def server_of(**terms):
    """Terms of a server: the expert section's defaults, and what a test says."""
    defaults = openai_expert.Config()
    names = [one.name for one in dataclasses.fields(Server)]
    return Server(**{name: getattr(defaults, name) for name in names} | terms)


def ask(policy, times=1):
    async def run():
        return [await policy.act(REQUEST) for _ in range(times)]

    return asyncio.run(run())


@pytest.fixture
def policy(server):
    made = []

    def make(sampling=None, **terms):
        served = server_of(**{"model": "m", "base_url": server.url} | terms)
        made.append(OpenAIPolicy(served, **(sampling or {})))
        return made[-1]

    yield make
    for each in made:
        asyncio.run(each.close())


def test_a_conversation_is_sent_and_the_response_read(server, policy, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server.answers = [reply("go left", prompt=12, cached=4)]
    sampling = {"temperature": 0.5, "max_new_tokens": 7, "stop": ("\n",), "seed": 3}
    asked = policy(sampling, key_variable="MY_KEY")
    (answer,) = ask(asked)
    assert (answer.text, answer.finish, answer.tokens) == ("go left", "stop", ())
    assert (answer.prompt_tokens, answer.prefilled) == (12, 8)
    (sent,) = server.requests
    assert sent["messages"] == [{"role": "user", "content": "hello"}]
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0.5, 7)
    assert (sent["stop"], sent["key"]) == (["\n"], "Bearer secret")
    ask(asked)
    assert server.requests[1]["seed"] == sent["seed"]


def test_unset_options_are_not_sent(server, policy):
    ask(policy())
    assert "seed" not in server.requests[0] and "stop" not in server.requests[0]


def test_transient_errors_are_retried_after_the_servers_delay(server, policy):
    server.answers = [
        refusal(429, "slow down", Retry_After="0.2"),
        refusal(503, "busy", Retry_After="0.1"),
        reply("at last"),
    ]
    asked = policy()
    begun = time.monotonic()
    (answer,) = ask(asked)
    assert answer.text == "at last" and time.monotonic() - begun >= 0.3
    assert asked.spent()["retries"] == 2 and asked.spent()["requests"] == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusal(401, "bad key"), r"refuses the key in \$OPENAI_API_KEY: .*bad key"),
        (refusal(404, "no such model"), "has no model 'm'"),
        (refusal(400, "bad temperature"), "answered 400.*bad temperature"),
        (refusal(500, "broken", Retry_After="0.01"), "answered 500, asked up to 2 times"),
        ((200, {}, {"choices": []}), "answered without choices"),
    ],
)
def test_permanent_errors_are_explained(server, policy, answer, said):
    server.answers = [answer] * 2
    with pytest.raises(PolicyError, match=said):
        ask(policy(retries=1))


def test_an_unreachable_server_is_explained(policy):
    gone = policy(base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(PolicyError, match="cannot be reached"):
        ask(gone)


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "too many tokens", "context_length_exceeded"),
        refusal(400, "This model's maximum context length is 8 tokens"),
    ],
)
def test_a_conversation_beyond_the_context_finishes_with_context(server, policy, answer):
    server.answers = [answer]
    (completion,) = ask(policy())
    assert completion.finish == "context"


def test_truncated_and_empty_responses_are_completions(server, policy):
    server.answers = [reply("I think", finish="length"), reply(None, finish="content_filter")]
    cut, empty = ask(policy(), 2)
    assert (cut.finish, cut.text, empty.text) == ("length", "I think", "")


def test_costs_are_counted_and_the_budget_holds(server, policy):
    server.answers = [reply("x", prompt=1000, cached=400, generated=100)]
    terms = {"input_price": 10.0, "cached_price": 1.0, "output_price": 30.0}
    asked = policy(budget=0.009, **terms)
    ask(asked)
    assert asked.spent()["dollars"] == pytest.approx((600 * 10 + 400 * 1 + 100 * 30) / 1e6)
    with pytest.raises(PolicyError, match=r"has spent 0\.01 of 0\.01 dollars"):
        ask(asked)
    assert len(server.requests) == 1


def test_a_request_that_waits_is_not_sent_once_the_budget_is_spent(server, policy):
    server.answers = [reply("x", generated=1000)]
    asked = policy(budget=0.01, output_price=30.0, requests_per_minute=200)

    async def run():
        return await asyncio.gather(*(asked.act(REQUEST) for _ in range(3)), return_exceptions=True)

    first, *others = asyncio.run(run())
    assert first.text == "x" and all(isinstance(other, PolicyError) for other in others)
    assert len(server.requests) == asked.spent()["requests"] == 1


def test_requests_respect_the_rate_limit(server, policy):
    begun = time.monotonic()
    ask(policy(requests_per_minute=600), 4)
    assert time.monotonic() - begun >= 0.3


def test_episodes_run_concurrently_and_a_failure_is_an_outcome(server, policy):
    server.answers = [reply("nonsense")] * 5 + [refusal(400, "no")]
    tasks = Corridor().tasks("train")
    episodes = [
        Episode(id=f"e{i}", task=tasks[i], round=0, attempt=0, max_steps=2) for i in range(3)
    ]
    played = loop.play_episodes_sync(Corridor(), policy(), episodes, max_consecutive_invalid=99)
    outcomes = sorted(trajectory.outcome for trajectory in played)
    assert outcomes == [Outcome.MAX_STEPS, Outcome.MAX_STEPS, Outcome.POLICY_ERROR]
    assert all(trajectory.agent == "m" for trajectory in played)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"model": ""}, "name the model"),
        ({"model": "m", "timeout_s": 0}, "timeout_s=0"),
        ({"model": "m", "budget": 1.0}, "never reached"),
        ({"model": "m", "input_price": -1.0}, "none is below 0"),
    ],
)
def test_invalid_settings_are_refused(terms, said):
    with pytest.raises(ConfigError, match=said):
        server_of(**{"model": "m"} | terms)


def test_a_missing_key_for_openais_server_is_refused(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds no key"):
        OpenAIPolicy(server_of(model="gpt"))


def test_an_expert_is_made_from_a_config_section(server):
    made = openai_expert.Config(model="m", base_url=server.url, seed=1)
    expert = openai_expert.make(made)
    (answer,) = ask(expert)
    asyncio.run(expert.close())
    assert answer.text == "ok" and expert.name == "m"
    assert server.requests[0]["temperature"] == 0.0 and "seed" in server.requests[0]
