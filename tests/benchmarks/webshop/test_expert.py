"""The careful shopper's figures: by hand, on a small catalogue, as documented, on real data."""

import json
import os
import pathlib

import pytest

from benchmarks.webshop import expert as benchmark
from eef_jax.envs import webshop
from eef_jax.errors import ConfigError
from eef_jax.experts import webshop_careful as expert
from tests.experts import goldenshop

ROOT = pathlib.Path(__file__).parents[3]
DATA = "EEF_WEBSHOP_1K"  # a folder that import_data made from the official 1,000 products


def attempt(task, win=False, **values):
    usual = {"reward": float(win), "actions": 8, "words": 100}
    return benchmark.Attempt(task=task, win=win, **{**usual, **values})


def test_figures_by_hand():
    found = [
        attempt("a", win=True, actions=4, words=50),
        attempt("b", reward=0.5, actions=10, from_start=1, from_states=4, states=5),
        attempt("c", actions=6, from_start=0, from_states=2, states=3),
    ]
    figures = benchmark.summarize({0: found, 1: [attempt("a", win=True, words=90)]})
    assert (figures.episodes, figures.win_rate, figures.reward) == (4, 0.5, 0.625)
    assert (figures.actions_of_failures, figures.words_of_wins) == (8, 70)
    assert figures.words_of_long_wins == 90
    assert (figures.from_start, figures.from_states) == (0.5, 0.75)
    assert figures.ratio == 1.5
    low, high = figures.ratio_interval
    assert low == pytest.approx(0.8) and high >= 1.5
    assert figures.row()[0] == "0-1"


def test_a_task_lost_with_several_seeds_is_drawn_as_one():
    lost = attempt("a", from_start=1, from_states=3, states=5)
    by_seed = {seed: [lost, attempt("b", win=True)] for seed in range(3)}
    figures = benchmark.summarize(by_seed)
    assert figures.ratio_interval == (figures.ratio, figures.ratio) == (0.6, 0.6)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ConfigError, match="of 1 episodes 1 were won, expected wins and failures"):
        benchmark.summarize({0: [attempt("a", win=True)]})


def test_plays_on_from_the_states_of_failures():
    env = goldenshop.make(train_tasks=30)
    found = benchmark.attempts(env, expert.Config(), split="train", states=5)
    assert len(found) == 30 and {one.win for one in found} == {True, False}
    for one in found:
        assert (one.states == 0) is one.win and one.words > 100
        assert one.from_start <= 1 and one.from_states <= one.states <= 5


def test_the_documented_table_is_that_of_the_stored_figures():
    stored = json.loads((benchmark.RESULTS / "webshop-expert-train.json").read_text("utf-8"))
    rows = [benchmark.Figures(**row) for row in stored["rows"]]
    table = benchmark.tables.table(benchmark.HEADER, [row.row() for row in rows])
    assert "\n".join(table) in (ROOT / "docs/experts.md").read_text("utf-8")


def test_on_the_official_products_its_failures_hold_something_to_learn():
    if not os.environ.get(DATA):
        pytest.skip(f"{DATA} is not set: the official products were not played")
    env = webshop.make(webshop.Config(data_dir=os.environ[DATA]))
    profile = expert.Config()
    found = benchmark.attempts(env, profile, split="train", states=5)
    figures = benchmark.summarize({profile.seed: found})
    assert 0.30 <= figures.win_rate <= 0.40
    assert 0.6 <= figures.reward <= 0.7
    assert figures.actions_of_failures >= 6
    assert figures.ratio >= 1.3
