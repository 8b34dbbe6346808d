"""Sessions against full forward passes: same tokens, same log-probabilities, no token twice."""

import asyncio
import collections
import contextlib
import dataclasses
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, wait

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax import sharding
from eef_jax.engine import config as config_lib
from eef_jax.engine.config import EngineConfig
from eef_jax.engine.sampling import SamplingParams
from eef_jax.errors import ConfigError
from eef_jax.models.cache import page_bytes
from tests.engine import toymodel

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=6)
DRAWN = SamplingParams(temperature=0.7, max_new_tokens=6)


@pytest.fixture(scope="module")
def model():
    return toymodel.model()


@pytest.fixture(scope="module")
def shared(model):
    with toymodel.engine(model) as engine:
        yield engine


@pytest.fixture
def engine(shared):
    """One engine for all, as good as new for each: nothing is resident."""
    shared._scheduler.pages.forget(b"adapter %d" % shared.base.version)
    yield shared
    shared._scheduler.pages.check()
    assert shared._scheduler.pages.held == 0


def ids(seed, n):
    return np.random.default_rng(seed).integers(0, toymodel.VOCAB, n).tolist()


def ask(engine, prompt, sampling=GREEDY, key=(0, 0)):
    return engine.open(prompt).generate(sampling, key).result()


@contextlib.contextmanager
def held(engine):
    """What is asked in here begins together, at the end."""
    tick = engine._scheduler.tick
    engine._scheduler.tick = lambda: False
    try:
        yield
    finally:
        engine._scheduler.tick = tick
        engine._wake.set()


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17, 33, 50])
def test_greedy_tokens_are_the_argmax_of_full_passes(engine, model, n):
    got = ask(engine, ids(n, n))
    scores = toymodel.logits(model, ids(n, n) + list(got.ids))
    assert list(got.ids) == scores[n - 1 : -1].argmax(-1).tolist()
    assert (got.finish, got.prefilled) == ("length", n)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("adapted", [True, False])
def test_log_probabilities_are_those_of_teacher_forcing(temperature, adapted):
    made = toymodel.model(adapted=adapted)
    sampling = SamplingParams(temperature=temperature, max_new_tokens=12)
    with toymodel.engine(made) as engine:
        for start in (ids(0, 20), ids(0, 20) + ids(1, 9)):  # the second finds the first's prefix
            got = ask(engine, start, sampling, key=(3, 4))
            scores = toymodel.logits(made, start + list(got.ids)) / temperature
            expected = jax.nn.log_softmax(scores[len(start) - 1 : -1])
            np.testing.assert_allclose(
                got.logprobs, expected[np.arange(12), list(got.ids)], atol=1e-4
            )
        assert engine.counters.reused >= 19


def test_over_turns_only_new_tokens_are_prefilled(engine, model):
    before = engine.counters.prefilled
    session, given = engine.open(ids(1, 10)), 10
    for turn in range(4):
        got = session.generate(GREEDY).result()
        start = len(session.ids) - 6
        scores = toymodel.logits(model, session.ids)
        assert list(got.ids) == scores[start - 1 : -1].argmax(-1).tolist()
        if turn < 3:
            session.append(ids(turn, 5))
            given += 5 + 1  # the last token of an answer is not computed before the next prompt
    # The last token of each prompt goes through decoding.
    assert engine.counters.prefilled - before == given - 4


def test_forks_share_the_prefix(engine, model):
    trunk = ids(2, 40)
    ask(engine, trunk)
    for cut in (24, 9):
        prompt = trunk[:cut] + ids(3, 6)
        got = ask(engine, prompt)
        assert got.prefilled == 6
        scores = toymodel.logits(model, prompt + list(got.ids))
        assert list(got.ids) == scores[len(prompt) - 1 : -1].argmax(-1).tolist()


def test_forks_asked_together_wait_for_the_first_to_compute_the_prefix(engine):
    trunk = ids(4, 40)
    before = engine.counters.prefilled
    answers = [engine.open(trunk[:cut]).generate(GREEDY) for cut in (40, 30, 20)]
    assert [answer.result().prefilled for answer in answers] == [40, 1, 1]
    assert engine.counters.prefilled - before == 39


def test_a_fork_of_a_session_says_what_the_session_would(engine):
    one = engine.open(ids(5, 12))
    one.generate(DRAWN, (1, 2)).result()
    one.append(ids(6, 3))
    two = one.fork()
    first, second = one.generate(DRAWN, (3, 4)).result(), two.generate(DRAWN, (3, 4)).result()
    assert (first.ids, first.logprobs) == (second.ids, second.logprobs)
    assert one.ids == two.ids and second.prefilled == 1
    third = two.fork()
    third.append(ids(7, 2))
    assert third.generate(DRAWN, (5, 6)).result().prefilled == 3  # and the token drawn last


def test_alone_equals_in_a_full_batch_bit_for_bit(engine):
    prompts = {name: ids(ord(name), 5 + 9 * i) for i, name in enumerate("abcdefg")}
    sessions = {name: engine.open(prompt) for name, prompt in prompts.items()}
    together = {n: s.generate(DRAWN, (7, ord(n))) for n, s in sessions.items()}
    together = {name: answer.result() for name, answer in together.items()}
    for name in "gdbecaf":
        engine._scheduler.pages.forget(b"adapter %d" % engine.base.version)
        alone = ask(engine, prompts[name], DRAWN, (7, ord(name)))
        assert (alone.ids, alone.logprobs) == (together[name].ids, together[name].logprobs)


def test_nobody_draws_until_all_who_can_be_are_prefilled(engine):
    before = collections.Counter(engine.counters.dispatches)
    with held(engine):
        answers = [engine.open(ids(i, 20)).generate(GREEDY) for i in range(4)]
    assert all(len(answer.result().ids) == 6 for answer in answers)
    ran = collections.Counter(engine.counters.dispatches) - before
    # 4 x 19 tokens of 32 a dispatch, then 6 tokens for all four, two a dispatch.
    assert ran == {"prefill": 3, "decode": 3}


def test_a_deeper_neighbour_changes_no_bit():
    deep_config = EngineConfig(
        max_num_seqs=4,
        max_context=1040,
        page_size=128,
        prefill_tokens=96,
        prefill_seqs=4,
        prefill_chunk=32,
    )
    assert deep_config.prefill_buckets == (4, 8, 9)
    with toymodel.engine(toymodel.model(max_positions=1040), config=deep_config) as engine:
        seen = []  # width, and the positions that are computed, of each prefill
        prefill = engine._programs.prefill

        def spy(adapter, chunks, tokens):
            seen.append((chunks.table.shape[1], set(chunks.positions.tolist())))
            prefill(adapter, chunks, tokens)

        engine._programs.prefill = spy
        alone = ask(engine, ids(1, 90), DRAWN, key=(1, 2))
        assert [width for width, _ in seen] == [4]
        engine._scheduler.pages.forget(b"adapter %d" % engine.base.version)
        # The shallow one fills what the deep one leaves: first 64 tokens, then the rest.
        deep, shallow = engine.open(ids(2, 560)), engine.open(ids(1, 90))
        with held(engine):
            answers = deep.generate(GREEDY), shallow.generate(DRAWN, (1, 2))
        beside = answers[1].result()
        assert (beside.ids, beside.logprobs) == (alone.ids, alone.logprobs)
        assert answers[0].result().prefilled == 560
        assert any(width == 8 and {80, 550} <= positions for width, positions in seen)


def test_stops(engine):
    free = ask(engine, ids(5, 9))
    stop = free.ids[2]
    first = free.ids.index(stop)
    sampling = SamplingParams(temperature=0.0, max_new_tokens=6, stop_ids=(stop,))
    got = ask(engine, ids(5, 9), sampling)
    assert got.ids == free.ids[: first + 1] and got.finish == "stop"
    sampling = SamplingParams(temperature=0.0, max_new_tokens=6, stop=lambda said: len(said) == 3)
    got = ask(engine, ids(5, 9), sampling)
    assert got.ids == free.ids[:3] and got.finish == "text"
    late = SamplingParams(temperature=0.0, max_new_tokens=6, min_new_tokens=5, stop_ids=(stop,))
    assert stop not in ask(engine, ids(5, 9), late).ids[:5]
    with pytest.raises(ConfigError, match="9 stop ids"):
        engine.open([1]).generate(SamplingParams(stop_ids=tuple(range(9))))


def test_a_text_stop_leaves_what_was_drawn_beyond_it_out_of_the_session(engine):
    cut = SamplingParams(temperature=0.0, max_new_tokens=6, stop=lambda said: len(said) == 1)
    session = engine.open(ids(5, 9))
    first = session.generate(cut).result()
    assert session.ids == (*ids(5, 9), *first.ids) and len(first.ids) == 1
    again = session.generate(GREEDY).result()
    assert ask(engine, ids(5, 9), SamplingParams(temperature=0.0, max_new_tokens=7)).ids == (
        *first.ids,
        *again.ids,
    )


def test_a_row_that_has_stopped_stays_out_of_the_rest_of_its_dispatch(model):
    # One answer stops at once while another goes on for many steps of the same dispatch.
    config = dataclasses.replace(toymodel.CONFIG, decode_steps=16)
    with toymodel.engine(model, config=config) as engine:
        first = ask(engine, ids(5, 9)).ids[0]
        short = SamplingParams(temperature=0.0, max_new_tokens=16, stop_ids=(first,))
        session = engine.open(ids(5, 9))
        both = (
            session.generate(short),
            engine.open(ids(6, 9)).generate(SamplingParams(temperature=0.0, max_new_tokens=16)),
        )
        assert [len(answer.result().ids) for answer in both] == [1, 16]
        session.append(ids(7, 4))
        got = session.generate(GREEDY).result()
        scores = toymodel.logits(model, session.ids)
        assert got.prefilled == 5 and list(got.ids) == scores[13:-1].argmax(-1).tolist()


def test_a_full_context_ends_an_answer(engine):
    got = ask(engine, ids(6, 62))
    assert (len(got.ids), got.finish) == (3, "context")
    got = ask(engine, ids(6, 65))
    assert (got.ids, got.finish) == ((), "context")


def test_several_adapters_at_once(engine, model):
    other = toymodel.model(seed=5)
    compiles, prompt = engine.compile_count, ids(7, 30)
    adapter = engine.load_adapter(other.trainable)
    sessions = [engine.open(prompt, adapter=a) for a in (engine.base, adapter) for _ in range(2)]
    got = [s.generate(GREEDY) for s in sessions]
    got = [answer.result().ids for answer in got]
    for made, said in ((model, got[0]), (other, got[2])):
        scores = toymodel.logits(
            toymodel.Model(
                config=model.config,
                lora=model.lora,
                graphdef=model.graphdef,
                frozen=model.frozen,
                trainable=made.trainable,
            ),
            prompt + list(said),
        )
        assert list(said) == scores[29:-1].argmax(-1).tolist()
    assert got[0] == got[1] != got[2] == got[3]
    assert engine.compile_count == compiles
    engine.unload_adapter(adapter)


@pytest.mark.parametrize("attention", ["pages", "gathered", "flash"])
def test_on_a_mesh_each_device_keeps_its_heads_and_the_answers_are_the_same(attention):
    made = toymodel.model()
    mesh = sharding.make_mesh({"data": 1, "tensor": 2}, jax.devices()[:2])
    placed = dataclasses.replace(
        made,
        frozen=sharding.place_tree(made.frozen, mesh),
        trainable=sharding.place_tree(made.trainable, mesh),
    )
    small = dataclasses.replace(toymodel.CONFIG, attention=attention)
    answers = []
    for model in (made, placed):
        with toymodel.engine(model, config=small) as engine:
            compiles = engine.compile_count
            session = engine.open(ids(1, 20))
            first = session.generate(DRAWN, (1, 2)).result()
            session.append(ids(2, 9))
            fork = session.fork()
            answers.append([first, session.generate(DRAWN).result(), fork.generate(DRAWN).result()])
            assert engine.compile_count == compiles
            engine.release_cache()
            assert ask(engine, ids(1, 20), DRAWN, (1, 2)).ids == answers[-1][0].ids
            assert engine.compile_count == compiles
            layer = engine._programs.cache[0]
    for one, other in zip(*answers, strict=True):
        assert one.ids == other.ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    for part in (layer.keys, layer.values):  # two kv heads on two devices
        assert {shard.data.shape[1] for shard in part.addressable_shards} == {1}
        assert {shard.device for shard in part.addressable_shards} == set(jax.devices()[:2])


def test_memory_that_was_given_back_is_taken_again_and_answers_stay_the_same(model):
    with toymodel.engine(model) as engine:
        compiles, answers = engine.compile_count, []
        for released in (False, True):
            session = engine.open(ids(1, 20))
            session.generate(DRAWN, (1, 2)).result()
            if released:
                engine.release_cache()
                assert engine._programs._cache is None
            session.append(ids(2, 9))
            answers.append(session.generate(DRAWN).result())
        assert answers[0].ids == answers[1].ids
        assert answers[0].logprobs == answers[1].logprobs
        # All of it, but for the last token, which is decoded, and what was decoded before.
        assert answers[1].prefilled > answers[0].prefilled
        assert engine.compile_count == compiles
        with held(engine):
            answer = engine.open(ids(1, 20)).generate(GREEDY)
            with pytest.raises(RuntimeError, match="being drawn"):
                engine.release_cache()
        answer.result()
        refused = Future()
        with held(engine):
            answer = engine.open(ids(1, 20)).generate(GREEDY)
            answer.add_done_callback(lambda _: refused.set_exception(_raised(engine.release_cache)))
        with pytest.raises(RuntimeError, match="callback"):
            refused.result(10)
    with pytest.raises(RuntimeError, match="closed"):
        engine.release_cache()


def _raised(call):
    """What a call raises."""
    try:
        call()
    except RuntimeError as error:
        return error
    return AssertionError("it did not raise")


def test_a_cancelled_answer_leaves_its_session_as_it_was(engine):
    long = SamplingParams(temperature=0.0, max_new_tokens=40)
    session, expected = engine.open(ids(8, 12)), ask(engine, ids(8, 12))
    answer = session.generate(long)
    assert answer.cancel()
    with pytest.raises(CancelledError):
        answer.result()
    assert session.ids == tuple(ids(8, 12))
    assert session.generate(GREEDY).result().ids == expected.ids


def test_whoever_has_an_answer_can_go_on_at_once(engine, monkeypatch):
    settled = Future._invoke_callbacks

    def late(future):  # who waits for a future wakes before its callbacks are called
        time.sleep(0.05)
        settled(future)

    monkeypatch.setattr(Future, "_invoke_callbacks", late)
    session = engine.open(ids(8, 12))
    got = session.generate(GREEDY).result()
    session.append([1, 2])
    assert session.ids == (*ids(8, 12), *got.ids, 1, 2)
    assert session.generate(GREEDY).result().prefilled == 3


def test_forks_go_on_when_whoever_computes_their_prefix_is_cancelled(engine):
    trunk = ids(4, 50)
    expected = ask(engine, trunk[:45])
    engine._scheduler.pages.forget(b"adapter %d" % engine.base.version)
    before, tick, cut = engine.counters.prefilled, engine._scheduler.tick, []

    def once():
        worked = tick()
        if worked and not cut:
            cut.append((engine.counters.prefilled - before, answers[0].cancel()))
        return worked

    engine._scheduler.tick = lambda: False
    answers = [engine.open(trunk[:n]).generate(GREEDY) for n in (50, 45)]
    engine._scheduler.tick = once
    engine._wake.set()
    got = answers[1].result()
    engine._scheduler.tick = tick
    assert cut == [(32, True)] and wait(answers).not_done == set()
    assert (got.ids, got.logprobs, got.prefilled) == (expected.ids, expected.logprobs, 45 - 32)


def test_answers_of_an_adapter_that_is_unloaded_are_cancelled_and_others_go_on(engine):
    expected = ask(engine, ids(1, 20)).ids
    adapter = engine.load_adapter(toymodel.model(seed=5).trainable)
    done, drawing = (engine.open(ids(i, 20), adapter=adapter) for i in (1, 2))
    done.generate(GREEDY).result()
    other = engine.open(ids(1, 20))
    with held(engine):
        answer, others = drawing.generate(GREEDY), other.generate(GREEDY)
        engine.unload_adapter(adapter)
    assert answer.cancelled() and others.result().ids == expected
    for session in (done, drawing):
        with pytest.raises(RuntimeError, match="adapter was unloaded"):
            session.generate(GREEDY)
    engine.unload_adapter(adapter)
    assert ask(engine, ids(1, 20)).ids == expected


def test_unloading_while_a_cancellation_is_under_way_gives_no_page_away(engine, monkeypatch):
    settled, late = Future._invoke_callbacks, threading.Event()
    drawing, go = threading.Event(), threading.Event()

    def stop(said):
        drawing.set()
        return not go.wait(10)

    adapter = engine.load_adapter(toymodel.model(seed=5).trainable)
    long = SamplingParams(temperature=0.0, max_new_tokens=30, stop=stop)
    answer = engine.open(ids(1, 20), adapter=adapter).generate(long)
    assert drawing.wait(10)
    monkeypatch.setattr(Future, "_invoke_callbacks", lambda f: late.wait(10) and settled(f))
    canceller = threading.Thread(target=answer.cancel)
    canceller.start()
    while not answer.cancelled():
        time.sleep(0.001)
    engine.unload_adapter(adapter)  # before the engine was told of the cancellation
    monkeypatch.undo()
    go.set()
    assert ask(engine, ids(2, 20)).ids
    late.set()
    canceller.join()
    assert ask(engine, ids(3, 50)).ids == ask(engine, ids(3, 50)).ids


def test_an_answer_asked_for_while_the_engine_closes_comes(model, monkeypatch):
    engine = toymodel.engine(model)
    ask(engine, ids(1, 10))
    attach, closers = Future.add_done_callback, []

    def while_closing(future, callback):
        if not closers:
            closers.append(threading.Thread(target=engine.close))
            closers[0].start()
            closers[0].join(0.5)
        attach(future, callback)

    monkeypatch.setattr(Future, "add_done_callback", while_closing)
    answer = engine.open(ids(1, 10)).generate(GREEDY)
    assert len(answer.result(10).ids) == 6
    closers[0].join()


def test_adapters_that_do_not_fit_are_refused(engine, model):
    wider = jax.tree.map(lambda x: jnp.concatenate([x, x]), model.trainable)
    with pytest.raises(ConfigError, match="another rank or dtype"):
        engine.load_adapter(wider)
    with toymodel.engine(model) as other:
        for call in (
            lambda: other.open([1], adapter=engine.base),
            lambda: other.unload_adapter(engine.base),
        ):
            with pytest.raises(ConfigError, match="another engine's"):
                call()


def test_senseless_keys_are_refused(engine):
    for key in ((-1, 0), (0, 1 << 32), (1,), (1, 2, 3)):
        with pytest.raises(ConfigError, match="expected two numbers"):
            engine.open([1]).generate(GREEDY, key)


@pytest.mark.parametrize("raised", [LookupError, StopIteration, SystemExit])
def test_a_failing_stop_fails_its_own_answer_alone(engine, raised):
    def stop(said):
        raise raised(len(said))

    with held(engine):
        answers = [
            engine.open(ids(i, 20)).generate(dataclasses.replace(GREEDY, stop=each))
            for i, each in enumerate([None, stop, None])
        ]
    with pytest.raises(raised if raised is LookupError else RuntimeError, match="1"):
        asyncio.run(asyncio.wait_for(_awaited(answers[1]), 10))
    assert [len(answers[i].result().ids) for i in (0, 2)] == [6, 6]


async def _awaited(answer):
    return await asyncio.wrap_future(answer)


def test_orders_behind_one_that_fails_are_carried_out(model):
    with toymodel.engine(model) as engine:
        ran = threading.Event()
        with engine._lock:
            engine._append(lambda: 1 / 0)
            engine._append(ran.set)
        assert ran.wait(10)
        with held(engine):
            answer = engine.open(ids(1, 10)).generate(GREEDY)
            answer.add_done_callback(lambda _: sys.exit())  # ends no thread of the engine's
        answer.result()
        assert len(ask(engine, ids(2, 10)).ids) == 6


def test_scores_that_are_no_numbers_fail_and_leave_nothing_behind(model):
    with toymodel.engine(model) as engine:
        expected = ask(engine, ids(1, 10)).ids
        broken = jax.tree.map(lambda x: x * np.nan, model.trainable)
        adapter = engine.load_adapter(broken)
        with pytest.raises(FloatingPointError, match="at position 10 are no numbers"):
            engine.open(ids(1, 10), adapter=adapter).generate(GREEDY).result()
        assert ask(engine, ids(1, 10)).ids == expected
        assert ask(engine, ids(2, 30)).logprobs


def test_tokens_that_the_model_does_not_have_are_refused(engine):
    session = engine.open([0, toymodel.VOCAB - 1])
    for wrong in (-1, toymodel.VOCAB):
        for call in (engine.open, session.append):
            with pytest.raises(ConfigError, match=f"token id {wrong}: .* from 0 to"):
                call([1, wrong])
    assert session.ids == (0, toymodel.VOCAB - 1)


def test_a_session_does_one_thing_at_a_time(engine):
    session = engine.open(ids(8, 12))
    answer = session.generate(SamplingParams(temperature=0.0, max_new_tokens=40))
    for call in (lambda: session.append([1]), session.fork, lambda: session.generate(GREEDY)):
        with pytest.raises(RuntimeError, match="while it draws"):
            call()
    session.close()
    session.close()
    assert answer.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        session.generate(GREEDY)
    with pytest.raises(ConfigError, match="no tokens"):
        engine.open().generate(GREEDY)


def test_calls_may_come_from_any_thread(engine):
    expected = {seed: ask(engine, ids(seed, 10)).ids for seed in range(8)}
    got = {}

    def talk(seed):
        got[seed] = ask(engine, ids(seed, 10)).ids

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


def test_closing_waits_for_answers_or_cancels_them(model):
    long = SamplingParams(temperature=0.0, max_new_tokens=40)
    engine = toymodel.engine(model)
    answer = engine.open(ids(1, 10)).generate(long)
    engine.close()
    assert len(answer.result().ids) == 40
    with pytest.raises(RuntimeError, match="closed"):
        engine.open(ids(1, 10)).generate(GREEDY)
    engine = toymodel.engine(model)
    answers = [engine.open(ids(i, 10)).generate(long) for i in range(9)]
    engine.close(wait=False)
    assert all(answer.done() for answer in answers) and answers[-1].cancelled()


def test_a_failing_dispatch_fails_its_answers_and_the_engine_goes_on(model, monkeypatch):
    with toymodel.engine(model) as engine:
        expected = ask(engine, ids(1, 10)).ids
        with monkeypatch.context() as patch:
            patch.setattr(engine._programs, "decode", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                ask(engine, ids(1, 10))
        assert ask(engine, ids(1, 10)).ids == expected


def test_invalid_configs_are_refused(model):
    with pytest.raises(ConfigError, match="64 positions"):
        toymodel.engine(model, config=EngineConfig(max_context=128))
    with pytest.raises(ConfigError, match="cannot hold one conversation"):
        EngineConfig(max_context=64, page_size=16, num_pages=3)
    with pytest.raises(ConfigError, match=r"engine\.max_num_seqs = -1"):
        EngineConfig(max_num_seqs=-1)
    with pytest.raises(ConfigError, match=r"engine\.decode_steps = 0"):
        EngineConfig(decode_steps=0)


def test_rows_and_pages_are_resolved_by_free_memory(model, monkeypatch, tmp_path):
    page = page_bytes(model.config, page_size=16, dtype="float32")
    open_config = EngineConfig(max_context=64, page_size=16)  # four pages a conversation
    for affordable, rows, pages in ((41, 10, 32), (4, 1, 4), (10_000, 64, 204)):
        free = affordable * page / config_lib.MEMORY_FRACTION
        monkeypatch.setattr(config_lib, "free_bytes", lambda _, free=free: free)
        found = config_lib.resolve(
            open_config, model.config, dtype="float32", device=jax.devices()[0]
        )
        assert (found.max_num_seqs, found.num_pages) == (rows, pages)
    monkeypatch.undo()
    monkeypatch.setattr(config_lib, "MEMINFO", tmp_path / "meminfo")
    config_lib.MEMINFO.write_text("MemFree: 9 kB\nMemAvailable:  2048 kB\n")
    assert config_lib.free_bytes(jax.devices()[0]) == 2048 * 1024
    config_lib.MEMINFO.unlink()
    assert config_lib.free_bytes(jax.devices()[0]) > 2**30
    gathered = dataclasses.replace(open_config, attention="gathered", max_num_seqs=100)
    found = config_lib.resolve(gathered, model.config, dtype="float32", device=jax.devices()[0])
    assert (found.max_num_seqs, found.num_pages) == (100, 400)
