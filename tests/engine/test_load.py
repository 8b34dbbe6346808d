"""Many episodes under memory pressure: forks, cancellations and preemptions change no bit."""

import contextlib
import dataclasses
import queue
import random
from concurrent.futures import wait

import jax
import numpy as np
import pytest

from eef_jax.config.sections import EngineConfig
from eef_jax.engine.pages import PageAllocator
from eef_jax.engine.programs import Programs
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.scheduler import Scheduler
from tests.engine import toymodel

# Eight conversations of up to four pages need 32 pages; a quarter of them holds two of the longest.
CONFIG = dataclasses.replace(toymodel.CONFIG, max_num_seqs=8, num_pages=32, decode_steps=4)
TIGHT = 8


class Players:
    """Episodes of a few turns each, some of which fork others, some of which are cancelled."""

    def __init__(self, engine, episodes):
        self.engine = engine
        self.episodes = episodes
        self.results = {}
        self.cancelled = 0

    def play(self):
        rng = random.Random(0)
        trunks = [[rng.randrange(toymodel.VOCAB) for _ in range(40)] for _ in range(20)]
        players = [self.episode(i, random.Random(i), trunks) for i in range(self.episodes)]
        submitted = [(player, next(player)) for player in players]
        while submitted:
            player, future = submitted.pop(0)
            wait([future])
            with contextlib.suppress(StopIteration):
                submitted.append(
                    (player, player.send(None if future.cancelled() else future.result()))
                )
        return self.results

    def episode(self, number, rng, trunks):
        prompt = trunks[rng.randrange(len(trunks))][: rng.randint(1, 40)]
        session = self.engine.open([*prompt, *self.words(rng, rng.randint(0, 4))])
        for turn in range(3):
            sampling = SamplingParams(
                temperature=rng.choice([0.0, 1.0]),
                top_p=rng.choice([1.0, 1.0, 0.8]),
                top_k=rng.choice([0, 0, 40]),
                max_new_tokens=rng.randint(1, 6),
            )
            if rng.random() < 0.1:
                yield self.cancelling(session, dataclasses.replace(sampling, max_new_tokens=6))
            got = yield session.generate(sampling, (number, turn))
            self.results[number, turn] = (got.ids, got.logprobs, got.finish)
            session.append(self.words(rng, rng.randint(0, 5)))
            if rng.random() < 0.2:
                session, left = session.fork(), session
                left.close()
        session.close()

    def cancelling(self, session, sampling):
        """The future of a request that cancels itself after two tokens, unless it ends before."""
        own_future = queue.SimpleQueue()

        def stop(ids):
            if len(ids) == 2:
                self.cancelled += own_future.get().cancel()
            return False

        future = session.generate(dataclasses.replace(sampling, stop_fn=stop))
        own_future.put(future)
        return future

    def words(self, rng, n):
        return [rng.randrange(toymodel.VOCAB) for _ in range(n)]


def with_few_pages(programs, count):
    """A scheduler that uses some of the pages only; the programs, which decide bits, stay."""
    size, exclusive_pages = programs.config.page_size, programs.config.attention == "pages"
    return Scheduler(programs, PageAllocator(count, size, exclusive_pages=exclusive_pages))


def played(model, programs, pages, episodes):
    scheduler = with_few_pages(programs, pages)
    with toymodel.engine(model, scheduler=scheduler, stop_ids=range(0, 320, 40)) as engine:
        compiles = engine.compile_count
        engine.release_cache()
        players = Players(engine, episodes)
        results = players.play()
        assert engine.compile_count == compiles  # nothing is compiled after the start
        assert players.cancelled > episodes / 10
    scheduler.allocator.check_invariants()
    assert scheduler.allocator.num_referenced == 0 and not scheduler.busy
    return results, engine.counters


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("episodes", [60, pytest.param(500, marks=pytest.mark.load)])
@pytest.mark.parametrize("attention", ["pages", "gathered"])
def test_with_a_quarter_of_the_pages_every_result_is_the_same(model, attention, episodes):
    programs = Programs(model, dataclasses.replace(CONFIG, attention=attention))
    expected, _ = played(model, programs, CONFIG.num_pages, episodes)
    got, counters = played(model, programs, TIGHT, episodes)
    assert len(expected) == 3 * episodes
    assert got == expected
    assert counters.replayed > 0
    if (attention, episodes) == ("pages", 500):  # where requests share fewer pages, and are many
        assert counters.preempted > 0


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize(
    ("layers", "context"), [(1, 128), pytest.param(2, 1024, marks=pytest.mark.load)]
)
def test_at_a_real_models_width_results_are_the_same_alone_together_and_in_any_order(
    layers, context
):
    # SmolLM2-135M's layers, in full at the default sizes: XLA multiplies these with other kernels.
    wide = toymodel.model(
        d_model=576,
        n_heads=9,
        n_kv_heads=3,
        head_dim=64,
        d_ff=1536,
        n_layers=layers,
        max_positions=context,
    )
    rng = np.random.default_rng(0)
    lengths = [n * context // 1024 for n in (90, 130, 257, 400, 640, 950)]
    prompts = [rng.integers(0, toymodel.VOCAB, n).tolist() for n in lengths]
    sampling = SamplingParams(temperature=0.7, max_new_tokens=8)
    with toymodel.engine(wide, config=EngineConfig(max_num_seqs=6, max_context=context)) as engine:

        def play(order):
            engine.release_cache()
            sessions = {i: engine.open(prompts[i]) for i in order}
            results = {}
            for turn in range(2):
                submitted = {i: s.generate(sampling, (i, turn)) for i, s in sessions.items()}
                for i, future in submitted.items():
                    results[i, turn] = (future.result().ids, future.result().logprobs)
                    sessions[i].append(prompts[i][: context // 26])
            return results

        together = play(range(6))
        assert play((5, 2, 4, 0, 1, 3)) == together
        alone = [play((i,)) for i in range(6)]
        assert {place: result for one in alone for place, result in one.items()} == together


@pytest.mark.parametrize("attention", ["pages", "gathered"])
def test_logprobs_after_a_preemption_equal_those_of_teacher_forcing(model, attention):
    programs = Programs(model, dataclasses.replace(CONFIG, attention=attention))
    sampling = SamplingParams(temperature=0.7, max_new_tokens=30)
    prompts = [[i + 1] * (20 + i) for i in range(4)]
    with toymodel.engine(model, scheduler=with_few_pages(programs, 6)) as engine:
        submitted = [engine.open(prompt).generate(sampling) for prompt in prompts]
        got = [future.result() for future in submitted]
        assert engine.counters.preempted > 0 and engine.counters.replayed > 0
    for prompt, result in zip(prompts, got, strict=True):
        logits = toymodel.logits(model, prompt + list(result.ids)) / 0.7
        expected = jax.nn.log_softmax(logits[len(prompt) - 1 : -1])
        chosen = expected[np.arange(30), list(result.ids)]
        np.testing.assert_allclose(result.logprobs, chosen, atol=1e-4)
