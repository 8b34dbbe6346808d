"""The served policy: what it sends, how it reads responses, and when it fails."""

import asyncio
import dataclasses
import time

import pytest

from eef_jax.errors import ConfigError, PolicyError
from eef_jax.experts import openai as openai_expert
from eef_jax.policies.openai import OpenAIPolicy
from eef_jax.policies.openai.pace import Pace
from eef_jax.policies.openai.server import Server
from eef_jax.rollout import loop
from eef_jax.types import ChatRequest, Episode, Message, Outcome
from tests.policies.chatserver import refusal, reply, serve
from tests.policies.openai import servers
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

    def make(sampling=None, pace=None, **terms):
        served = server_of(**{"model": "m", "base_url": server.url} | terms)
        made.append(OpenAIPolicy(served, pace=pace, **(sampling or {})))
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
    assert set(server.requests[0]) == {"model", "messages", "key"}


class FakeTime:
    """A clock that only waiting moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


SAMPLING = {
    "temperature": 0.0,
    "top_p": 0.9,
    "max_new_tokens": 512,
    "seed": 0,
    "stop": ("Observation:",),
}


@pytest.mark.parametrize("case", servers.CASES, ids=str)
def test_what_servers_answer_ends_as_it_should(server, policy, case):
    server.answers = list(case.responses)
    clock = FakeTime()
    asked = policy(SAMPLING, pace=Pace(0, clock=clock, sleep=clock.sleep), output_price=1.0)
    try:
        (completion,) = ask(asked)
    except PolicyError as error:
        ends, said = "error", str(error)
    else:
        ends, said = completion.finish, completion.reason
        # A message with a text, or an end of the episode: never a step without words.
        assert bool(completion.text.strip()) == (ends in ("stop", "length"))
    assert ends == case.ends and case.said in said
    spent = asked.spent()
    assert len(server.requests) == case.sent == spent["requests"] + spent["retries"]
    assert spent["requests"] == 1
    counted = (spent["prompt"], spent["generated"], spent["estimated"])
    assert counted == (case.prompt, case.generated, case.estimated)
    assert spent["dollars"] == pytest.approx(case.generated / 1e6)
    waited = clock.now - 100.0
    assert waited > 0 if case.waited is None else waited == pytest.approx(case.waited)


def test_every_provider_has_cases():
    named = {case.provider for case in servers.CASES}
    assert named >= {
        *("OpenAI", "vLLM", "SGLang", "llama.cpp", "TGI", "OpenRouter", "Anthropic", "Gemini")
    }
    assert len({str(case) for case in servers.CASES}) == len(servers.CASES)


def test_waiting_is_told(server, policy, caplog):
    server.answers = [refusal(429, "slow down", Retry_After="180")]
    clock = FakeTime()
    ask(policy(pace=Pace(0, clock=clock, sleep=clock.sleep)))
    (line,) = [one.getMessage() for one in caplog.records if one.name.startswith("eef_jax")]
    assert "is busy (429: slow down): waiting 180 s, until " in line


def test_a_failing_server_is_asked_as_often_as_configured(server, policy):
    server.answers = [refusal(500, "broken")] * 9
    clock = FakeTime()
    asked = policy(retries=2, pace=Pace(0, clock=clock, sleep=clock.sleep))
    with pytest.raises(PolicyError, match="answered 500, asked 3 times: broken"):
        ask(asked)
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_given_up_after_max_wait_s(server, policy):
    server.answers = [refusal(429, "slow down", Retry_After="0")] * 99
    clock = FakeTime()
    asked = policy(max_wait_s=30.0, pace=Pace(0, clock=clock, sleep=clock.sleep))
    with pytest.raises(PolicyError, match="max_wait_s=30"):
        ask(asked)
    assert len(server.requests) < 20 and clock.now - 100.0 <= 30.0


def test_a_retry_is_another_draw_of_a_silent_answer(server, policy):
    server.answers = [reply(None)]
    ask(policy({"seed": 3}))
    first, second = server.requests
    assert second["seed"] == first["seed"] + 1


def test_the_caps_newer_name_is_learned_once(server, policy):
    words = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'."
    server.answers = [refusal(400, words)]
    ask(policy({"max_new_tokens": 7}), 2)
    caps = [(one.get("max_tokens"), one.get("max_completion_tokens")) for one in server.requests]
    assert caps == [(7, None), (None, 7), (None, 7)]


def test_openais_own_server_knows_the_caps_newer_name(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    own = OpenAIPolicy(server_of(model="gpt"), max_new_tokens=7)
    assert own._body(REQUEST)["max_completion_tokens"] == 7
    asyncio.run(own.close())


def test_instructions_are_put_in_front_of_the_first_message(server, policy):
    ask(policy({"instructions": "Say click[name]."}))
    (sent,) = server.requests
    assert sent["messages"] == [{"role": "user", "content": "Say click[name].\n\nhello"}]


def test_unpaired_surrogates_are_sent_as_the_replacement_character(server, policy):
    torn = Message(role="user", content="half \ud83d an emoji, and \ud83d\ude00 whole")
    request = dataclasses.replace(REQUEST, messages=(torn,))
    asyncio.run(policy().act(request))
    assert server.requests[0]["messages"][0]["content"] == "half \ufffd an emoji, and 😀 whole"


def test_an_unreachable_server_is_explained(policy):
    gone = policy(base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(PolicyError, match="cannot be reached"):
        ask(gone)


def test_costs_are_counted_and_the_budget_holds(server, policy):
    server.answers = [reply("x", prompt=1000, cached=400, generated=100)]
    terms = {"input_price": 10.0, "cached_price": 1.0, "output_price": 30.0}
    asked = policy(budget=0.009, **terms)
    ask(asked)
    assert asked.spent()["dollars"] == pytest.approx((600 * 10 + 400 * 1 + 100 * 30) / 1e6)
    with pytest.raises(PolicyError, match=r"has spent 0\.01 of 0\.01 dollars"):
        ask(asked)
    assert len(server.requests) == 1


def test_what_earlier_starts_have_spent_counts_against_the_budget(server, policy):
    server.answers = [reply("x", generated=1000)] * 2
    asked = policy(budget=0.1, output_price=30.0)
    asked.charge({"requests": 7, "dollars": 0.04})
    asked.charge({})
    ask(asked)
    assert asked.spent()["dollars"] == pytest.approx(0.03)
    ask(asked)
    with pytest.raises(PolicyError, match=r"has spent 0\.10 of 0\.10 dollars, all starts"):
        ask(asked)
    assert len(server.requests) == 2


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
        ({"model": ""}, "no model is named"),
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
    sent = server.requests[0]
    assert sent["temperature"] == 0.0 and sent["max_tokens"] == 512 and "seed" in sent
    assert "top_p" not in sent


def test_an_expert_can_leave_out_every_sampling_field(server):
    left_out = dict.fromkeys(("seed", "temperature", "top_p", "max_new_tokens"))
    expert = openai_expert.make(openai_expert.Config(model="m", base_url=server.url, **left_out))
    ask(expert)
    asyncio.run(expert.close())
    assert set(server.requests[0]) == {"model", "messages", "key"}


def test_an_expert_is_told_the_environments_instructions(server):
    class Told:
        instructions = "Say one word."

    section = openai_expert.Config(model="m", base_url=server.url)
    expert = openai_expert.make(section, env=Told())
    ask(expert)
    asyncio.run(expert.close())
    assert server.requests[0]["messages"][0]["content"].startswith("Say one word.")


def test_a_server_is_checked_by_one_request(server):
    openai_expert.check_server(openai_expert.Config(model="m", base_url=server.url))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusal(401, "bad key"), "refuses the key"),
        (refusal(400, "Only the default temperature is supported"), "temperature=None"),
        (refusal(400, "maximum context length is 8 tokens"), "no room for an answer"),
        (reply(None, finish="length"), "answered twice with no text"),
    ],
)
def test_a_server_that_would_not_answer_is_found_out(server, answer, said):
    server.answers = [answer] * 2
    with pytest.raises(PolicyError, match=said):
        openai_expert.check_server(openai_expert.Config(model="m", base_url=server.url))
