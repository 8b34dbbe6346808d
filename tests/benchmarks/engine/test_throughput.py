"""The throughput benchmark: rates, shares of the time, and the removal of its timers."""

from benchmarks.engine import throughput
from benchmarks.engine.workload import Workload
from eef_jax.engine.programs import Programs
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.scheduler import Scheduler
from tests.engine import toymodel


def test_rates_of_a_toy_model():
    rate = throughput.rate(toymodel.model(max_positions=256), 2)
    assert rate["concurrency"] == 2 and rate["prefilled"] > 0 and rate["decoded"] > 0


def test_shares_of_the_time_add_up_to_1(monkeypatch):
    small = Workload(experts=1, states=2, turns=2, prompt=6, action=4, observation=5, ids=(0, 320))
    monkeypatch.setattr(throughput, "Workload", lambda experts: small)
    found = throughput.shares(toymodel.model(), 1)
    assert abs(sum(found.values()) - 1) < 1e-9
    assert min(found[name] for name in ("prefill", "logits and sampling", "host")) > 0


def test_timers_are_removed_after_the_block():
    model = toymodel.model()
    scheduler = Scheduler(Programs(model, toymodel.CONFIG))
    with toymodel.engine(model, scheduler=scheduler) as engine:
        with throughput.timed(scheduler.programs) as seconds:
            engine.open([1, 2, 3]).generate(SamplingParams(max_new_tokens=4)).result()
        once = dict(seconds)
        assert min(once["prefill"], once["decode"]) > 0
        engine.open([4, 5, 6]).generate(SamplingParams(max_new_tokens=4)).result()
        assert seconds == once
