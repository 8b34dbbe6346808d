"""The engine against full forward passes: same tokens, same log-probabilities, no token twice."""

import jax
import numpy as np
import pytest

from eef_jax.engine.decode import Shapes
from eef_jax.engine.sampling import Sampling
from eef_jax.errors import ConfigError
from tests.engine import toymodel

GREEDY = Sampling(temperature=0.0, max_new_tokens=6)
DRAWN = Sampling(temperature=0.7, max_new_tokens=6)


@pytest.fixture(scope="module")
def model():
    return toymodel.model()


@pytest.fixture(scope="module")
def engine(model):
    return toymodel.engine(model)


@pytest.fixture(autouse=True)
def released(engine):
    yield
    for name in engine._slots.sessions():
        engine.release(name)
    engine._slots.clear()


def ids(seed, n):
    return np.random.default_rng(seed).integers(0, toymodel.VOCAB, n).tolist()


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17, 33, 50])
def test_greedy_tokens_are_the_argmax_of_full_passes(engine, model, n):
    prompt = ids(n, n)
    got = engine.generate("a", prompt, sampling=GREEDY)
    scores = toymodel.logits(model, prompt + list(got.ids))
    assert list(got.ids) == scores[n - 1 : -1].argmax(-1).tolist()
    assert (got.finish, got.prefilled) == ("length", n)


def test_log_probabilities_are_those_of_teacher_forcing(engine, model):
    prompt = ids(0, 20)
    for sampling in (Sampling(max_new_tokens=12), Sampling(temperature=0.7, max_new_tokens=12)):
        got = engine.generate("a", prompt, key=(3, 4), sampling=sampling)
        scores = toymodel.logits(model, prompt + list(got.ids))[19:-1] / sampling.temperature
        expected = jax.nn.log_softmax(scores)[np.arange(12), list(got.ids)]
        np.testing.assert_allclose(got.logprobs, expected, atol=1e-4)


def test_over_turns_only_new_tokens_are_prefilled(engine, model):
    before = engine.counters.prefilled, engine.counters.generated
    prompt, fed = ids(1, 10), 0
    for turn in range(4):
        got = engine.generate("a", prompt, sampling=GREEDY)
        scores = toymodel.logits(model, prompt + list(got.ids))
        assert list(got.ids) == scores[len(prompt) - 1 : -1].argmax(-1).tolist()
        fed += len(got.ids) - 1  # the last token of an answer is new to the cache
        length = len(prompt)
        prompt = prompt + list(got.ids) + ids(turn, 5)
    prefilled = engine.counters.prefilled - before[0]
    assert prefilled == length - fed + (len(got.ids) - 1)
    assert engine.counters.generated - before[1] == 4 * 6


def test_forks_copy_the_prefix_they_share(engine, model):
    trunk = ids(2, 40)
    engine.generate("deep", trunk, sampling=GREEDY)
    engine.release("deep")
    for name, cut in (("mid", 24), ("start", 9)):
        copied = engine.counters.copied
        prompt = trunk[:cut] + ids(3, 6)
        got = engine.generate(name, prompt, sampling=GREEDY)
        assert engine.counters.copied - copied == cut
        assert got.prefilled == 6
        scores = toymodel.logits(model, prompt + list(got.ids))
        assert list(got.ids) == scores[len(prompt) - 1 : -1].argmax(-1).tolist()


def test_forks_asked_together_wait_for_the_first_to_compute_the_prefix(engine):
    trunk, answers = ids(4, 40), {}
    before = engine.counters.prefilled
    for name, cut in (("a", 40), ("b", 30), ("c", 20)):
        prompt = trunk[:cut]
        engine.submit(
            name,
            prompt,
            key=(0, 0),
            sampling=GREEDY,
            done=lambda got, name=name: answers.update({name: got}),
        )
    while engine.busy:
        engine.tick()
    # Of a prompt that is wholly there, the last token is still to be fed.
    assert {name: got.prefilled for name, got in answers.items()} == {"a": 40, "b": 1, "c": 1}
    assert engine.counters.prefilled - before == 42


def test_alone_equals_in_a_full_batch_bit_for_bit(engine):
    prompts = {name: ids(ord(name), 5 + 9 * i) for i, name in enumerate("abcd")}

    def run(names):
        answers = {}
        for name in names:
            engine.submit(
                name,
                prompts[name],
                key=(7, ord(name)),
                sampling=DRAWN,
                done=lambda got, name=name: answers.update({name: got}),
            )
        while engine.busy:
            engine.tick()
        for name in names:
            engine.release(name)
        engine._slots.clear()
        return answers

    together = run("abcd")
    for name in "dbca":
        assert run(name)[name] == together[name]


def test_more_sessions_than_slots_take_turns(engine):
    answers = []
    for i in range(9):
        engine.submit(f"s{i}", ids(i, 12), key=(0, i), sampling=GREEDY, done=answers.append)
    for i in range(9):
        while len(answers) <= i:
            if not engine.tick():
                for name in engine._slots.sessions():
                    engine.release(name)
    assert not engine.busy and len(answers) == 9


def test_a_stop_id_ends_an_answer(model):
    free = toymodel.engine(model).generate("a", ids(5, 9), sampling=GREEDY)
    stop = free.ids[2]
    got = toymodel.engine(model, stop_ids=[stop]).generate("a", ids(5, 9), sampling=GREEDY)
    assert got.ids == free.ids[: free.ids.index(stop) + 1] and got.finish == "stop"


def test_a_full_context_ends_an_answer(engine):
    got = engine.generate("a", ids(6, 62), sampling=GREEDY)
    assert (len(got.ids), got.finish) == (3, "context")
    got = engine.generate("b", ids(6, 65), sampling=GREEDY)
    assert (got.ids, got.finish) == ((), "context")


def test_new_weights_compile_nothing_and_forget_prefixes(model):
    engine = toymodel.engine(model)
    prompt = ids(7, 30)
    old = engine.generate("a", prompt, sampling=GREEDY)
    compiles, other = engine.compiles, toymodel.model(seed=5)
    engine.set_trainable(other.trainable)
    new = engine.generate("a", prompt, sampling=GREEDY)
    assert engine.compiles == compiles and new.prefilled == 30 and new.ids != old.ids
    engine.submit("a", prompt, key=(0, 0), sampling=GREEDY, done=lambda got: None)
    with pytest.raises(RuntimeError, match="new weights"):
        engine.set_trainable(model.trainable)


def test_releasing_a_waiting_session_drops_its_prompt_and_frees_those_behind_it(engine):
    answers, trunk = [], ids(8, 40)
    engine.submit("a", trunk, key=(0, 0), sampling=GREEDY, done=answers.append)
    engine.submit("b", trunk[:30], key=(0, 0), sampling=GREEDY, done=answers.append)
    engine.tick()
    engine.release("a")
    while engine.busy:
        assert engine.tick()
    assert len(answers) == 1


def test_a_context_longer_than_the_models_is_refused(model):
    with pytest.raises(ConfigError, match="64 positions"):
        toymodel.engine(model, shapes=Shapes(max_context=128))
