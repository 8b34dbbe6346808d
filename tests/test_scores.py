"""Scores, intervals against known values, and paired differences."""

import dataclasses
import json
import math
import random
import statistics

import pytest

from eef_jax import scores
from eef_jax.types import Outcome
from tests import toyrun


def played(wins, losses, broken=0):
    test = toyrun.tasks("test", wins + losses + broken)
    attempts = [toyrun.attempt(task, ["a"], n < wins) for n, task in enumerate(test)]
    whole = attempts[: wins + losses]
    lost = [dataclasses.replace(t, outcome=Outcome.ENV_ERROR) for t in attempts[wins + losses :]]
    return whole + lost


def test_score():
    score = scores.score(played(3, 1))
    assert (score.episodes, score.left_out, score.win_rate) == (4, 0, 0.75)
    assert score.reward == pytest.approx((3 + 0.25) / 4)
    assert "win rate 75.0%" in str(score) and "left out" not in str(score)


def test_infrastructure_is_left_out_and_counted():
    score = scores.score(played(1, 1, broken=2))
    assert (score.episodes, score.left_out, score.win_rate) == (2, 2, 0.5)
    assert "2 left out" in str(score)


def test_rewards_in_every_convention_of_the_environment():
    attempts = played(1, 2)
    assert scores.score(attempts).rewards == {}
    for place, (final, best) in enumerate([(1.0, 1.0), (0.0, 0.5)]):
        info = {"rewards": {"final": final, "best": best}}
        step = dataclasses.replace(attempts[place].steps[0], info=info)
        attempts[place] = dataclasses.replace(attempts[place], steps=(step,))
    attempts[2] = dataclasses.replace(attempts[2], steps=())
    score = scores.score(attempts)
    assert score.rewards == pytest.approx({"final": 1 / 3, "best": 0.5})
    fields = json.loads(json.dumps(dataclasses.asdict(score)))
    assert scores.score_from_json(fields) == score


def test_nothing_played():
    score = scores.score([])
    assert (score.episodes, score.win_rate, score.win_interval) == (0, 0.0, (0.0, 1.0))


@pytest.mark.parametrize(
    ("wins", "count", "low", "high"),
    # R: prop.test(wins, count, correct = FALSE)$conf.int
    [
        (81, 263, 0.2553, 0.3662),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 2, 0.0945, 0.9055),
    ],
)
def test_wilson(wins, count, low, high):
    assert scores.wilson_interval(wins, count) == pytest.approx((low, high), abs=1e-4)


def test_mean_interval():
    values = [0.2, 0.4, 0.9, 1.0]
    half = 1.959964 * statistics.stdev(values) / 2
    assert scores.mean_interval(values) == pytest.approx((0.625 - half, 0.625 + half))
    assert scores.mean_interval([0.5]) == (0.5, 0.5)


def test_wilson_holds_what_it_promises():
    def coverage(p, n=100):
        held = [k for k in range(n + 1) if inside(p, scores.wilson_interval(k, n))]
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in held)

    def inside(p, interval):
        return interval[0] <= p <= interval[1]

    assert statistics.mean(coverage(p / 100) for p in range(5, 96)) == pytest.approx(0.95, abs=5e-3)


def test_by_tag_and_json():
    summary = scores.score_summary(played(2, 2))
    assert sorted(summary) == ["all", "easy", "hard"]
    assert (
        scores.score_from_json(json.loads(json.dumps(summary["easy"])))
        == scores.by_tag(played(2, 2))["easy"]
    )


def test_paired_averages_over_seeds_first():
    left, right = [[1, 1, 0, 1], [1, 0, 0, 1]], [[0, 1, 0, 0]]
    difference, low, high = scores.paired_difference(left, right)
    by_task = [1.0, -0.5, 0.0, 1.0]
    assert difference == pytest.approx(0.375)
    half = 1.959964 * statistics.stdev(by_task) / math.sqrt(4)
    assert (low, high) == pytest.approx((0.375 - half, 0.375 + half))


def test_paired_is_tighter_than_unpaired_when_tasks_differ():
    draw = random.Random(0)
    easy = [draw.random() < 0.5 for _ in range(500)]
    left = [float(win) for win in easy]
    right = [float(win and n % 10 > 0) for n, win in enumerate(easy)]
    _, low, high = scores.paired_difference([left], [right])
    assert low > 0 and high - low < 0.05


def test_paired_refuses_other_tasks():
    with pytest.raises(ValueError):
        scores.paired_difference([[1.0, 0.0]], [[1.0]])
