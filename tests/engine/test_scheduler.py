"""The scheduler on its own: what shares a dispatch, what waits, what is preempted."""

import pytest

from eef_jax.config.sections import EngineConfig
from eef_jax.engine.config import prefill_buckets
from eef_jax.engine.pages import PageAllocator
from eef_jax.engine.programs import Programs
from eef_jax.engine.request import GenerationRequest, prompt_tags
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.scheduler import Scheduler
from tests.engine import toymodel
from tests.engine.toymodel import prompt

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=6)
SAMPLED = SamplingParams(temperature=0.7, max_new_tokens=6)


@pytest.fixture(scope="module")
def programs(model):
    return Programs(model, toymodel.CONFIG)


@pytest.fixture
def scheduler(model, programs):
    made = over(programs, model)
    yield made
    made.allocator.check_invariants()
    assert made.allocator.num_referenced == 0 and not made.busy


def over(programs, model, allocator=None):
    scheduler = Scheduler(programs, allocator)
    scheduler.add_adapter(0, programs.adapter_leaves(model.trainable))
    return scheduler


def submit(scheduler, ids, sampling=GREEDY, key=(0, 0)):
    """Submit a prompt: the request, and a list that its result is appended to."""
    results = []
    request = GenerationRequest(
        adapter=0,
        tags=prompt_tags(ids),
        prompt_length=len(ids),
        key=key,
        sampling=sampling,
        stop_ids=frozenset(),
        max_context=scheduler.programs.config.max_context,
        on_done=results.append,
    )
    scheduler.submit(request)
    return request, results


def run(scheduler):
    while scheduler.step():
        pass


def generate(scheduler, ids, sampling=GREEDY, key=(0, 0)):
    _, results = submit(scheduler, ids, sampling, key)
    run(scheduler)
    return results[0]


def test_forks_submitted_together_wait_for_the_first_to_compute_the_prefix(scheduler):
    trunk = prompt(4, 40)
    submitted = [submit(scheduler, trunk[:cut])[1] for cut in (40, 30, 20)]
    run(scheduler)
    assert [results[0].prefilled for results in submitted] == [40, 1, 1]
    assert scheduler.counters.prefilled == 39


def test_prefills_run_before_decodes(scheduler):
    submitted = [submit(scheduler, prompt(i, 20))[1] for i in range(4)]
    run(scheduler)
    assert all(len(results[0].ids) == 6 for results in submitted)
    # 4 x 19 tokens at 32 a dispatch, then 6 tokens for all four at two a dispatch.
    assert scheduler.counters.dispatches == {"prefill": 3, "decode": 3}


def test_a_request_continues_when_the_one_that_computes_its_prefix_is_cancelled(scheduler):
    trunk = prompt(4, 50)
    expected = generate(scheduler, trunk[:45])
    scheduler.reset()
    first, _ = submit(scheduler, trunk)
    _, results = submit(scheduler, trunk[:45])
    before = scheduler.counters.prefilled
    assert scheduler.step()
    assert scheduler.counters.prefilled - before == 32
    scheduler.cancel(first)
    run(scheduler)
    (got,) = results
    assert (got.ids, got.logprobs, got.prefilled) == (expected.ids, expected.logprobs, 45 - 32)


@pytest.mark.slow
@pytest.mark.optimized
def test_a_deeper_request_in_the_same_prefill_changes_no_bit(monkeypatch, code_generation):
    config = EngineConfig(
        max_num_seqs=4,
        max_context=1040,
        page_size=128,
        prefill_tokens=96,
        prefill_seqs=4,
        prefill_chunk=32,
    )
    assert prefill_buckets(config) == (4, 8, 9)
    model = toymodel.model(max_positions=1040)
    programs = Programs(model, config)
    seen = []  # bucket and positions of each prefill
    prefill = programs.prefill

    def spy(adapter, chunks, tokens):
        seen.append((chunks.table.shape[1], set(chunks.positions.tolist())))
        prefill(adapter, chunks, tokens)

    monkeypatch.setattr(programs, "prefill", spy)
    alone = generate(over(programs, model), prompt(1, 90), SAMPLED, key=(1, 2))
    assert [bucket for bucket, _ in seen] == [4]
    scheduler = over(programs, model)
    # The shallow request uses what the deep one leaves: first 64 tokens, then the rest.
    _, deep = submit(scheduler, prompt(2, 560))
    _, shallow = submit(scheduler, prompt(1, 90), SAMPLED, key=(1, 2))
    run(scheduler)
    assert (shallow[0].ids, shallow[0].logprobs) == (alone.ids, alone.logprobs)
    assert deep[0].prefilled == 560
    assert any(bucket == 8 and {80, 550} <= positions for bucket, positions in seen)


def test_a_preempted_request_gives_the_same_result(programs, model, scheduler):
    sampling = SamplingParams(temperature=0.7, max_new_tokens=30)
    prompts = [[i + 1] * (20 + i) for i in range(4)]
    expected = [generate(scheduler, ids, sampling) for ids in prompts]
    few = PageAllocator(6, programs.config.page_size, exclusive_pages=True)
    tight = over(programs, model, few)
    submitted = [submit(tight, ids, sampling)[1] for ids in prompts]
    run(tight)
    assert tight.counters.preempted > 0 and tight.counters.replayed > 0
    assert [r[0].ids for r in submitted] == [e.ids for e in expected]
    assert [r[0].logprobs for r in submitted] == [e.logprobs for e in expected]
