"""RFT: own wins of all rounds and its three budgets; the methods that only clone."""

import pytest

from eef_jax.errors import ConfigError
from eef_jax.methods import eef, rft, sft_all, sft_positive
from eef_jax.methods.base import Attempts
from eef_jax.types import KEPT_ALL
from tests.methods import builders

TASKS = [builders.task("a"), builders.task("b"), builders.task("c")]
A, B, C = TASKS
EXPERTS = (
    builders.expert(8, of=A),
    builders.expert(8, of=A, name="second", first=("gpt does 0", "gpt does 1")),
    builders.expert(2, of=B),
    builders.expert(3, of=C, win=True),
)


def count_by_task(method, max_steps=15):
    counts = dict.fromkeys((task.id for task in TASKS), 0)
    for episode in method.episodes(Attempts(experts=EXPERTS), TASKS, 1, max_steps):
        counts[episode.task.id] += 1
    return counts


@pytest.mark.parametrize("rollouts", [1, 6])
def test_a_fixed_number_of_rollouts(rollouts):
    method = rft.make(rft.Config(rollouts=rollouts))
    assert set(count_by_task(method).values()) == {int(rollouts)}
    episodes = method.episodes(Attempts(experts=EXPERTS), TASKS, 1, 15)
    assert all(episode.parent is None and episode.fork_step == 0 for episode in episodes)
    assert len({episode.id for episode in episodes}) == len(episodes)


@pytest.mark.parametrize("states", [0, 3, 5])
@pytest.mark.parametrize("explore", ["failed", "all"])
@pytest.mark.parametrize("rollouts", [1, 3])
@pytest.mark.parametrize("max_steps", [3, 15])
def test_matched_plays_as_many_episodes_as_eef(states, explore, rollouts, max_steps):
    matched = rft.make(
        rft.Config(rollouts="matched", states=states, explore=explore, eef_rollouts=rollouts)
    )
    theirs = eef.make(eef.Config(states=states, explore=explore, rollouts=rollouts))
    assert count_by_task(matched, max_steps) == count_by_task(theirs, max_steps)


def test_matched_counts_shared_prefixes_once():
    # A: s_0, then 1 .. 5 of the first expert and 3 .. 5 of the second; B: s_0 and s_1; C was won
    assert count_by_task(rft.make(rft.Config(rollouts="matched"))) == {"a": 9, "b": 2, "c": 1}


def test_own_wins_of_all_rounds_by_the_rule_of_eef():
    for method in (rft.make(rft.Config()), eef.make(eef.Config(states=0))):
        attempts = Attempts(experts=EXPERTS)
        attempts = builders.play(method, attempts, TASKS, 1, lambda e: e.task.id == "a", own=3)
        attempts = builders.play(method, attempts, TASKS, 2, lambda e: e.task.id in "ab", own=4)
        assert builders.learned(method.select(attempts, TASKS, 2)) == [
            ("expert_win", 0, "eee"),
            ("s0", 0, "ooo"),
            ("s0", 0, "oooo"),
        ]
        facts = method.facts(attempts, TASKS, 2)
        assert facts["solved"] == 3
        assert facts["solved_only_through_failure"] == 0
        assert facts["yield"] == {"0": {"played": 3, "completed": 3, "wins": 2}}


def test_the_clone_is_the_same_for_all():
    attempts = Attempts(experts=EXPERTS)
    clones = [m.make(m.Config()).select(attempts, TASKS, 0) for m in (eef, rft, sft_positive)]
    assert clones[0] == clones[1] == clones[2]
    assert [s.trajectory.task for s in clones[0]] == [C]


def test_sft_all_learns_failures_too():
    attempts = Attempts(experts=EXPERTS)
    method = sft_all.make(sft_all.Config())
    selections = method.select(attempts, TASKS, 0)
    assert [s.trajectory for s in selections] == list(EXPERTS)
    assert {r for s in selections for r in s.reasons} == {KEPT_ALL}
    assert all(all(s.weights) for s in selections)
    assert method.rounds == 0
    assert not method.episodes(attempts, TASKS, 1, 15)
    assert method.facts(attempts, TASKS, 0)["examples"] == {"expert": 4}


@pytest.mark.parametrize("rollouts", ["match", 0, -1, 1.5])
def test_bad_number_of_rollouts(rollouts):
    with pytest.raises(ConfigError, match=r"method\.rollouts is .*'matched'"):
        rft.make(rft.Config(rollouts=rollouts))
