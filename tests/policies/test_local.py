"""The local policy: whole episodes over a real engine, batched, reproducible, errors explained."""

import asyncio

import numpy as np
import pytest

from eef_jax.config.sections import EngineConfig
from eef_jax.engine.programs import Programs
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.scheduler import Scheduler
from eef_jax.errors import PolicyError
from eef_jax.policies.local import LocalPolicy
from eef_jax.rollout import loop
from eef_jax.text.chat import ChatTokenizer
from eef_jax.types import ChatRequest, Episode, Message, Outcome
from tests.engine import toymodel
from tests.text import toys
from tests.toygame import Corridor

CONFIG = EngineConfig(
    max_num_seqs=4,
    max_context=256,
    page_size=64,
    prefill_tokens=64,
    prefill_seqs=4,
    prefill_chunk=16,
    decode_steps=2,
)
SAMPLING = SamplingParams(temperature=1.0, max_new_tokens=4)


@pytest.fixture(scope="module")
def chat():
    return ChatTokenizer(toys.tokenizer())


@pytest.fixture(scope="module")
def model():
    return toymodel.model(max_positions=256)


@pytest.fixture(scope="module")
def scheduler(model):
    return Scheduler(Programs(model, CONFIG))


@pytest.fixture(scope="module")
def engine(model, scheduler, chat):
    with toymodel.engine(model, stop_ids=chat.stop_ids, scheduler=scheduler) as engine:
        yield engine
        assert scheduler.allocator.num_referenced == 0


def make(engine, chat, seed=0, sampling=SAMPLING, **options):
    return LocalPolicy(engine, chat, sampling=sampling, seed=seed, name="tiny", **options)


def play(policy, episodes, **options):
    async def run():
        try:
            return await loop.play_episodes(
                Corridor(), policy, episodes, max_consecutive_invalid=99, **options
            )
        finally:
            await policy.close()

    return asyncio.run(run())


def test_a_request_cancelled_by_the_engine_fails_its_episode(model):
    class Meddling(ChatTokenizer):
        """Unloads the adapter when stop texts are sought: its first requests are in flight."""

        def decode(self, ids):
            engine.unload_adapter(adapter)
            return super().decode(ids)

    chat = Meddling(toys.tokenizer())
    with toymodel.engine(model, stop_ids=chat.stop_ids, config=CONFIG) as engine:
        adapter = engine.load_adapter(model.trainable)
        policy = make(engine, chat, adapter=adapter, stop=["never said"])
        played = play(policy, orders(6))
    assert [t.outcome for t in played] == [Outcome.POLICY_ERROR] * 6
    said = {t.provenance["reason"] for t in played}
    assert any("the engine cancelled the request" in reason for reason in said)
    assert any("was unloaded" in reason for reason in said)


def orders(n, max_steps=3):
    tasks = Corridor().tasks("train")
    return [
        Episode(id=f"e{i}", task=tasks[i % 8], round=1, attempt=i // 8, max_steps=max_steps)
        for i in range(n)
    ]


def talk(policy, *contents, episode="x"):
    messages = tuple(Message(role="user", content=content) for content in contents)
    return policy.act(
        ChatRequest(
            episode=episode,
            messages=messages,
            tokens=((),) * len(messages),
            turn=0,
            attempt=0,
            task="t",
        )
    )


def test_episodes_end_and_no_token_is_computed_twice(engine, chat):
    before = engine.counters.prefilled
    got = play(make(engine, chat), orders(12))
    assert {t.outcome for t in got} == {Outcome.MAX_STEPS}
    assert all(t.tokenizer == chat.fingerprint and len(t.steps) == 3 for t in got)
    for trajectory in got:
        for step in trajectory.steps:
            assert 1 <= len(step.tokens) == len(step.logprobs) <= 4
            said = [i for i in step.tokens if i not in chat.stop_ids]
            assert step.message == chat.decode(said)
    # What a second, cold engine would compute for the last turns alone, less what was decoded.
    whole = 0
    for trajectory in got:
        messages, tokens = list(Corridor().prompt(trajectory.task)), [(), ()]
        for step in trajectory.steps[:-1]:
            messages += [
                Message(role="user", content=step.observation),
                Message(role="assistant", content=step.message),
            ]
            tokens += [(), step.tokens]
        messages.append(Message(role="user", content=trajectory.steps[-1].observation))
        fed = sum(len(step.tokens) - 1 for step in trajectory.steps[:-1])
        # The last token of each prompt goes through decoding.
        whole += len(chat.prompt(messages, (*tokens, ()))) - fed - len(trajectory.steps)
    computed = engine.counters.prefilled - before
    assert computed <= whole <= computed + engine.counters.reused


def test_an_episode_does_not_depend_on_the_batch_or_the_order(engine, chat):
    together = {t.id: t for t in play(make(engine, chat), orders(6))}
    for order in reversed(orders(6)):
        assert play(make(engine, chat), [order], concurrency=1)[0] == together[order.id]


def test_seeds_and_attempts_change_the_samples(engine, chat):
    def said(seed, n=1, which=0):
        return [s.tokens for s in play(make(engine, chat, seed), orders(n))[which].steps]

    assert said(0) == said(0) != said(1)
    assert said(0, 9, 0) != said(0, 9, 8)  # attempts 0 and 1 of one task


def test_an_engine_failure_is_a_policy_error_and_the_next_request_succeeds(
    engine, scheduler, chat, monkeypatch
):
    async def run():
        policy = make(engine, chat)
        with monkeypatch.context() as patch:
            patch.setattr(scheduler, "step", lambda: 1 / 0)
            with pytest.raises(PolicyError, match="ZeroDivisionError"):
                await talk(policy, "hello")
        answer = await talk(policy, "hello")
        await policy.close()
        await policy.close()
        with pytest.raises(PolicyError, match="closed"):
            await talk(policy, "hello")
        return answer

    assert len(asyncio.run(run()).tokens) >= 1


def test_a_prompt_beyond_the_context_finishes_with_context(engine, chat):
    async def run():
        policy = make(engine, chat)
        answer = await talk(policy, "go left " * 200)
        await policy.close()
        return answer

    answer = asyncio.run(run())
    assert (answer.finish, answer.text) == ("context", "")
    assert answer.prompt_tokens > 256


def test_a_cancelled_request_frees_the_engine(engine, chat):
    async def run():
        policy = make(engine, chat)
        asked = asyncio.ensure_future(talk(policy, "hello"))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        policy.finish("x")
        again = await talk(policy, "hello", episode="y")
        await policy.close()
        return again

    assert np.isfinite(asyncio.run(run()).logprobs).all()


def test_a_stop_text_ends_a_message_and_is_cut_off(engine, chat):
    async def run(**options):
        policy = make(engine, chat, **options)
        answer = await talk(policy, "hello")
        await policy.close()
        return answer

    whole = asyncio.run(run())
    stop = whole.text[1:3]
    cut = asyncio.run(run(stop=[stop]))
    assert stop and cut.finish == "stop" and cut.text == whole.text[: whole.text.index(stop)]
    assert whole.tokens[: len(cut.tokens)] == cut.tokens


def test_a_mark_precedes_the_first_user_message(engine, chat):
    request = lambda first: ChatRequest(
        episode=first,
        messages=(Message(role="user", content=first),),
        tokens=((),),
        turn=0,
        attempt=0,
        task="t",
    )

    async def said(policy, first):
        try:
            return await policy.act(request(first))
        finally:
            await policy.close()

    marked = asyncio.run(said(make(engine, chat, mark="well"), "go"))
    written = asyncio.run(said(make(engine, chat), "well\ngo"))
    plain = asyncio.run(said(make(engine, chat), "go"))
    assert marked.tokens == written.tokens
    assert marked.prompt_tokens == written.prompt_tokens > plain.prompt_tokens
