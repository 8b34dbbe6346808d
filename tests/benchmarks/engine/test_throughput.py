"""The engine's clocks: every program's time is its own, and taken off afterwards."""

from benchmarks.engine import throughput
from benchmarks.engine.workload import Workload
from eef_jax.engine.sampling import SamplingParams
from tests.engine import toymodel


def test_rates_of_a_toy():
    rate = throughput.drawing(toymodel.model(max_positions=256), 2)
    assert rate["slots"] == 2 and rate["prefilled"] > 0 and rate["decoded"] > 0


def test_shares_are_of_the_whole(monkeypatch):
    small = Workload(experts=1, states=2, turns=2, prompt=6, action=4, observation=5, ids=(0, 320))
    monkeypatch.setattr(throughput, "Workload", lambda experts: small)
    found = throughput.shares(toymodel.model(), 1)
    assert abs(sum(found.values()) - 1) < 1e-9
    assert min(found[name] for name in ("prefill", "scores and sampling", "host")) > 0


def test_clocks_are_taken_off():
    with toymodel.engine(toymodel.model()) as engine:
        with throughput.clocks(engine) as spent:
            engine.open([1, 2, 3]).generate(SamplingParams(max_new_tokens=4)).result()
        once = dict(spent)
        assert min(once["prefill"], once["decode"]) > 0
        engine.open([4, 5, 6]).generate(SamplingParams(max_new_tokens=4)).result()
        assert spent == once
