"""The engine against full forward passes: same tokens and log-probabilities, no token twice."""

import dataclasses
import threading
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax import sharding
from eef_jax.engine.programs import Programs
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.scheduler import Scheduler
from eef_jax.errors import ConfigError
from tests.engine import toymodel
from tests.engine.toymodel import GREEDY, SAMPLED, generate, paused, prompt


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17, 33, 50])
def test_greedy_tokens_are_the_argmax_of_full_forward_passes(engine, model, n):
    got = generate(engine, prompt(n, n))
    logits = toymodel.logits(model, prompt(n, n) + list(got.ids))
    assert list(got.ids) == logits[n - 1 : -1].argmax(-1).tolist()
    assert (got.finish, got.prefilled) == ("length", n)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("adapted", [True, False])
def test_logprobs_equal_those_of_teacher_forcing(temperature, adapted):
    made = toymodel.model(adapted=adapted)
    sampling = SamplingParams(temperature=temperature, max_new_tokens=12)
    with toymodel.engine(made) as engine:
        # The second prompt reuses the first one's pages.
        for start in (prompt(0, 20), prompt(0, 20) + prompt(1, 9)):
            got = generate(engine, start, sampling, key=(3, 4))
            logits = toymodel.logits(made, start + list(got.ids)) / temperature
            expected = jax.nn.log_softmax(logits[len(start) - 1 : -1])
            np.testing.assert_allclose(
                got.logprobs, expected[np.arange(12), list(got.ids)], atol=1e-4
            )
        assert engine.counters.reused >= 19


def test_over_turns_only_new_tokens_are_prefilled(engine, model):
    before = engine.counters.prefilled
    session, given = engine.open(prompt(1, 10)), 10
    for turn in range(4):
        got = session.generate(GREEDY).result()
        start = len(session.ids) - 6
        logits = toymodel.logits(model, session.ids)
        assert list(got.ids) == logits[start - 1 : -1].argmax(-1).tolist()
        if turn < 3:
            session.append(prompt(turn, 5))
            given += 5 + 1  # a result's last token is computed with the next prompt only
    # The last token of each prompt goes through decoding.
    assert engine.counters.prefilled - before == given - 4


def test_prompts_with_a_common_prefix_share_its_pages(engine, model):
    trunk = prompt(2, 40)
    generate(engine, trunk)
    for cut in (24, 9):
        fork = trunk[:cut] + prompt(3, 6)
        got = generate(engine, fork)
        assert got.prefilled == 6
        logits = toymodel.logits(model, fork + list(got.ids))
        assert list(got.ids) == logits[len(fork) - 1 : -1].argmax(-1).tolist()


@pytest.mark.optimized
def test_a_request_alone_equals_the_same_in_a_full_batch_bit_for_bit(model, code_generation):
    prompts = {name: prompt(ord(name), 5 + 9 * i) for i, name in enumerate("abcdefg")}
    with toymodel.engine(model) as engine:
        sessions = {name: engine.open(ids) for name, ids in prompts.items()}
        futures = {n: s.generate(SAMPLED, (7, ord(n))) for n, s in sessions.items()}
        together = {name: future.result() for name, future in futures.items()}
        for name in "gdbecaf":
            engine.release_cache()
            alone = generate(engine, prompts[name], SAMPLED, (7, ord(name)))
            assert (alone.ids, alone.logprobs) == (together[name].ids, together[name].logprobs)


def test_stop_ids_and_stop_fn_end_a_request(engine):
    free = generate(engine, prompt(5, 9))
    stop = free.ids[2]
    first = free.ids.index(stop)
    sampling = SamplingParams(temperature=0.0, max_new_tokens=6, stop_ids=(stop,))
    got = generate(engine, prompt(5, 9), sampling)
    assert got.ids == free.ids[: first + 1] and got.finish == "stop"
    sampling = SamplingParams(temperature=0.0, max_new_tokens=6, stop_fn=lambda ids: len(ids) == 3)
    got = generate(engine, prompt(5, 9), sampling)
    assert got.ids == free.ids[:3] and got.finish == "text"
    late = SamplingParams(temperature=0.0, max_new_tokens=6, min_new_tokens=5, stop_ids=(stop,))
    assert stop not in generate(engine, prompt(5, 9), late).ids[:5]
    with pytest.raises(ConfigError, match="9 stop ids"):
        engine.open([1]).generate(SamplingParams(stop_ids=tuple(range(9))))


def test_a_stopped_row_writes_nothing_in_later_steps_of_its_dispatch(model):
    # One request stops at once while another continues for many steps of the same dispatch.
    config = dataclasses.replace(toymodel.CONFIG, decode_steps=16)
    with toymodel.engine(model, config=config) as engine:
        first = generate(engine, prompt(5, 9)).ids[0]
        short = SamplingParams(temperature=0.0, max_new_tokens=16, stop_ids=(first,))
        session = engine.open(prompt(5, 9))
        both = (
            session.generate(short),
            engine.open(prompt(6, 9)).generate(SamplingParams(temperature=0.0, max_new_tokens=16)),
        )
        assert [len(future.result().ids) for future in both] == [1, 16]
        session.append(prompt(7, 4))
        got = session.generate(GREEDY).result()
        logits = toymodel.logits(model, session.ids)
        assert got.prefilled == 5 and list(got.ids) == logits[13:-1].argmax(-1).tolist()


def test_a_full_context_ends_a_request(engine):
    got = generate(engine, prompt(6, 62))
    assert (len(got.ids), got.finish) == (3, "context")
    got = generate(engine, prompt(6, 65))
    assert (got.ids, got.finish) == ((), "context")


def test_several_adapters_at_once(engine, model):
    other = toymodel.model(seed=5)
    compiles, start = engine.compile_count, prompt(7, 30)
    adapter = engine.load_adapter(other.trainable)
    sessions = [engine.open(start, adapter=a) for a in (engine.base, adapter) for _ in range(2)]
    got = [s.generate(GREEDY) for s in sessions]
    got = [future.result().ids for future in got]
    for made, ids in ((model, got[0]), (other, got[2])):
        logits = toymodel.logits(
            toymodel.Model(
                config=model.config,
                lora=model.lora,
                graphdef=model.graphdef,
                frozen=model.frozen,
                trainable=made.trainable,
            ),
            start + list(ids),
        )
        assert list(ids) == logits[29:-1].argmax(-1).tolist()
    assert got[0] == got[1] != got[2] == got[3]
    assert engine.compile_count == compiles
    engine.unload_adapter(adapter)


@pytest.mark.parametrize("attention", ["pages", "gathered", "flash"])
def test_on_a_mesh_each_device_holds_its_heads_and_results_are_the_same(attention):
    made = toymodel.model(n_layers=1)
    mesh = sharding.make_mesh({"data": 1, "tensor": 2}, jax.devices()[:2])
    placed = dataclasses.replace(
        made,
        frozen=sharding.place_tree(made.frozen, mesh),
        trainable=sharding.place_tree(made.trainable, mesh),
    )
    small = dataclasses.replace(toymodel.CONFIG, attention=attention)
    results = []
    for model in (made, placed):
        programs = Programs(model, small)
        with toymodel.engine(model, scheduler=Scheduler(programs)) as engine:
            compiles = engine.compile_count
            session = engine.open(prompt(1, 20))
            first = session.generate(SAMPLED, (1, 2)).result()
            session.append(prompt(2, 9))
            fork = session.fork()
            results.append(
                [first, session.generate(SAMPLED).result(), fork.generate(SAMPLED).result()]
            )
            assert engine.compile_count == compiles
            engine.release_cache()
            assert generate(engine, prompt(1, 20), SAMPLED, (1, 2)).ids == results[-1][0].ids
            assert engine.compile_count == compiles
            layer = programs.cache[0]
    for one, other in zip(*results, strict=True):
        assert one.ids == other.ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    for part in (layer.keys, layer.values):  # two kv heads on two devices
        assert {shard.data.shape[1] for shard in part.addressable_shards} == {1}
        assert {shard.device for shard in part.addressable_shards} == set(jax.devices()[:2])


def test_a_released_cache_is_allocated_again_and_results_are_the_same(model):
    scheduler = Scheduler(Programs(model, toymodel.CONFIG))
    with toymodel.engine(model, scheduler=scheduler) as engine:
        compiles, results = engine.compile_count, []
        for released in (False, True):
            session = engine.open(prompt(1, 20))
            session.generate(SAMPLED, (1, 2)).result()
            if released:
                engine.release_cache()
                assert not scheduler.programs.holds_cache
            session.append(prompt(2, 9))
            results.append(session.generate(SAMPLED).result())
        assert results[0].ids == results[1].ids
        assert results[0].logprobs == results[1].logprobs
        # Everything but the last token and the entries that were decoded before.
        assert results[1].prefilled > results[0].prefilled
        assert engine.compile_count == compiles
        with paused(scheduler):
            future = engine.open(prompt(1, 20)).generate(GREEDY)
            with pytest.raises(RuntimeError, match="being generated"):
                engine.release_cache()
        future.result()
        refused = Future()
        with paused(scheduler):
            future = engine.open(prompt(1, 20)).generate(GREEDY)
            future.add_done_callback(lambda _: refused.set_exception(_raised(engine.release_cache)))
        with pytest.raises(RuntimeError, match="callback"):
            refused.result(10)
    with pytest.raises(RuntimeError, match="closed"):
        engine.release_cache()


def test_adapters_of_other_shapes_or_engines_are_refused(engine, model):
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


def test_nan_logits_fail_the_request_and_do_not_spread(model):
    with toymodel.engine(model) as engine:
        expected = generate(engine, prompt(1, 10)).ids
        broken = jax.tree.map(lambda x: x * np.nan, model.trainable)
        adapter = engine.load_adapter(broken)
        with pytest.raises(FloatingPointError, match="at position 10 are NaN"):
            engine.open(prompt(1, 10), adapter=adapter).generate(GREEDY).result()
        assert generate(engine, prompt(1, 10)).ids == expected
        assert generate(engine, prompt(2, 30)).logprobs


def test_requests_can_come_from_several_threads(engine):
    expected = {seed: generate(engine, prompt(seed, 10)).ids for seed in range(8)}
    got = {}

    def talk(seed):
        got[seed] = generate(engine, prompt(seed, 10)).ids

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


def _raised(call):
    """The RuntimeError that a call raises."""
    try:
        call()
    except RuntimeError as error:
        return error
    return AssertionError("it did not raise")
