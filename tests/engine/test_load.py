"""Many episodes at once, with little room: forks, cancellations and preemptions change no bit."""

import contextlib
import dataclasses
import queue
import random
from concurrent.futures import wait

import jax
import numpy as np
import pytest

from eef_jax.engine.config import EngineConfig
from eef_jax.engine.pages import PageAllocator
from eef_jax.engine.sampling import SamplingParams
from tests.engine import toymodel

EPISODES = 500
# Eight conversations of up to four pages need 32; a quarter of it holds two of the longest.
CONFIG = dataclasses.replace(toymodel.CONFIG, max_num_seqs=8, num_pages=32, decode_steps=4)
TIGHT = 8


@pytest.fixture(scope="module")
def model():
    return toymodel.model()


class Players:
    """Episodes of a few turns each, some of which fork others, some of which are cancelled."""

    def __init__(self, engine):
        self.engine = engine
        self.answers = {}
        self.dropped = 0

    def play(self):
        dice = random.Random(0)
        trunks = [[dice.randrange(toymodel.VOCAB) for _ in range(40)] for _ in range(20)]
        players = [self.episode(i, random.Random(i), trunks) for i in range(EPISODES)]
        asked = [(player, next(player)) for player in players]
        while asked:
            player, answer = asked.pop(0)
            wait([answer])
            with contextlib.suppress(StopIteration):
                asked.append((player, player.send(None if answer.cancelled() else answer.result())))
        return self.answers

    def episode(self, number, dice, trunks):
        prompt = trunks[dice.randrange(len(trunks))][: dice.randint(1, 40)]
        session = self.engine.open([*prompt, *self.words(dice, dice.randint(0, 4))])
        for turn in range(3):
            sampling = SamplingParams(
                temperature=dice.choice([0.0, 1.0]),
                top_p=dice.choice([1.0, 1.0, 0.8]),
                top_k=dice.choice([0, 0, 40]),
                max_new_tokens=dice.randint(1, 6),
            )
            if dice.random() < 0.1:
                yield self.dropping(session, dataclasses.replace(sampling, max_new_tokens=6))
            got = yield session.generate(sampling, (number, turn))
            self.answers[number, turn] = (got.ids, got.logprobs, got.finish)
            session.append(self.words(dice, dice.randint(0, 5)))
            if dice.random() < 0.2:
                session, left = session.fork(), session
                left.close()
        session.close()

    def dropping(self, session, sampling):
        """An answer that is cancelled in its midst, if it does not end before."""
        asked = queue.SimpleQueue()

        def stop(drawn):
            if len(drawn) == 2:
                self.dropped += asked.get().cancel()
            return False

        answer = session.generate(dataclasses.replace(sampling, stop=stop))
        asked.put(answer)
        return answer

    def words(self, dice, n):
        return [dice.randrange(toymodel.VOCAB) for _ in range(n)]


def short_of_pages(engine, count):
    """Take pages away; the programs stay, as bits are a program's."""
    one_reader = engine.config.attention == "pages"
    engine._scheduler.pages = PageAllocator(count, engine.config.page_size, one_reader=one_reader)


def played(model, pages, attention):
    config = dataclasses.replace(CONFIG, attention=attention)
    with toymodel.engine(model, config=config, stop_ids=range(0, 320, 40)) as engine:
        short_of_pages(engine, pages)
        compiles = engine.compile_count
        players = Players(engine)
        answers = players.play()
        assert engine.compile_count == compiles  # nothing compiled after the start
        assert players.dropped > EPISODES / 10
    engine._scheduler.pages.check()
    assert engine._scheduler.pages.held == 0 and not engine._scheduler.busy
    return answers, engine.counters


@pytest.mark.parametrize("attention", ["pages", "gathered"])
def test_with_a_quarter_of_the_pages_every_answer_is_the_same(model, attention):
    expected, _ = played(model, CONFIG.num_pages, attention)
    got, counters = played(model, TIGHT, attention)
    assert len(expected) == 3 * EPISODES
    assert got == expected
    assert counters.replayed > 0
    assert counters.preempted > 0 or attention == "gathered"  # which shares more


def test_at_a_real_models_width_answers_are_the_same_alone_together_and_in_any_order():
    # SmolLM2-135M's layers and the sizes that runs take: XLA multiplies these by other kernels.
    wide = toymodel.model(
        d_model=576, n_heads=9, n_kv_heads=3, head_dim=64, d_ff=1536, max_positions=1024
    )
    dice = np.random.default_rng(0)
    prompts = [dice.integers(0, toymodel.VOCAB, n) for n in (90, 130, 257, 400, 640, 950)]
    sampling = SamplingParams(temperature=0.7, max_new_tokens=8)
    with toymodel.engine(wide, config=EngineConfig(max_num_seqs=6, max_context=1024)) as engine:

        def play(order):
            engine._scheduler.pages.forget(b"adapter %d" % engine.base.version)
            sessions = {i: engine.open(prompts[i]) for i in order}
            answers = {}
            for turn in range(2):
                asked = {i: s.generate(sampling, (i, turn)) for i, s in sessions.items()}
                for i, answer in asked.items():
                    answers[i, turn] = (answer.result().ids, answer.result().logprobs)
                    sessions[i].append(prompts[i][:40])
            return answers

        together = play(range(6))
        assert play((5, 2, 4, 0, 1, 3)) == together
        alone = [play((i,)) for i in range(6)]
        assert {place: answer for one in alone for place, answer in one.items()} == together


@pytest.mark.parametrize("attention", ["pages", "gathered"])
def test_log_probabilities_after_a_preemption_are_those_of_teacher_forcing(model, attention):
    config = dataclasses.replace(CONFIG, attention=attention)
    sampling = SamplingParams(temperature=0.7, max_new_tokens=30)
    prompts = [[i + 1] * (20 + i) for i in range(4)]
    with toymodel.engine(model, config=config) as engine:
        short_of_pages(engine, 6)
        asked = [engine.open(prompt).generate(sampling) for prompt in prompts]
        got = [answer.result() for answer in asked]
        assert engine.counters.preempted > 0 and engine.counters.replayed > 0
    for prompt, answer in zip(prompts, got, strict=True):
        scores = toymodel.logits(model, prompt + list(answer.ids)) / 0.7
        expected = jax.nn.log_softmax(scores[len(prompt) - 1 : -1])
        chosen = expected[np.arange(30), list(answer.ids)]
        np.testing.assert_allclose(answer.logprobs, chosen, atol=1e-4)
