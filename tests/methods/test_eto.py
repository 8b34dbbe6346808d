"""ETO: pairs of a win and a failure of one task."""

from eef_jax.methods import eto
from eef_jax.methods.base import Attempts, loss_of, mark_of
from eef_jax.types import KEPT_OTHER, KEPT_PREFERRED, Loss
from tests.methods import builders

TASKS = [builders.task("a"), builders.task("b"), builders.task("c")]
A, B, C = TASKS
# Task a has two expert wins, of which the second is shorter; b a failure; c a win.
LONG = builders.expert(5, of=A, win=True, name="long")
SHORT = builders.expert(3, of=A, win=True, name="short")
FAILED = builders.expert(4, of=B)
WON = builders.expert(2, of=C, win=True)
EXPERTS = Attempts(experts=(LONG, SHORT, FAILED, WON))


def by_table(table):
    """Rules of winning from a table: the results of a task's rollouts, in order."""
    return lambda episode: {"1": True, "0": False, "?": None}[
        table[episode.task.id][episode.attempt]
    ]


def pairs(method, *rounds):
    attempts = EXPERTS
    for number, table in enumerate(rounds, start=1):
        attempts = builders.play(method, attempts, TASKS, number, by_table(table))
    selections = method.select(attempts, TASKS, len(rounds))
    sides = list(zip(selections[::2], selections[1::2], strict=True))
    for left, right in sides:
        assert left.pair == right.pair == right.trajectory.id
        assert left.advantages == (1.0,) * left.trajectory.length == left.weights
        assert right.advantages == (-1.0,) * right.trajectory.length
        assert set(left.reasons) == {KEPT_PREFERRED} and set(right.reasons) == {KEPT_OTHER}
    return [(left.trajectory.id, right.trajectory.id) for left, right in sides]


def test_each_failure_is_paired_with_the_shortest_expert_win():
    method = eto.make(eto.Config(rollouts=3))
    table = {"a": "010", "b": "110", "c": "?1?"}
    assert pairs(method, table) == [
        (SHORT.id, "round_1/a/s0/0"),
        (SHORT.id, "round_1/a/s0/2"),
    ]


def test_own_wins_are_preferred_sides_where_asked():
    method = eto.make(eto.Config(rollouts=3, wins="any"))
    table = {"a": "010", "b": "100", "c": "011"}
    own = "round_1/a/s0/1"  # two steps, fewer than the experts
    assert pairs(method, table) == [
        (own, "round_1/a/s0/0"),
        (own, "round_1/a/s0/2"),
        ("round_1/b/s0/0", "round_1/b/s0/1"),
        ("round_1/b/s0/0", "round_1/b/s0/2"),
        ("round_1/c/s0/1", "round_1/c/s0/0"),
    ]


def test_only_the_newest_failures_are_learned():
    method = eto.make(eto.Config(rollouts=1))
    first, second = {"a": "0", "b": "0", "c": "0"}, {"a": "0", "b": "0", "c": "1"}
    assert pairs(method, first, second) == [(SHORT.id, "round_2/a/s0/0")]


def test_round_0_is_the_clone_and_the_losses_say_so():
    method = eto.make(eto.Config(beta=0.3))
    clone = method.select(EXPERTS, TASKS, 0)
    assert [s.trajectory for s in clone] == [LONG, SHORT, WON]
    assert loss_of(method, 0) == Loss()
    assert loss_of(method, 1).name == "dpo" and loss_of(method, 1).options == {"beta": 0.3}
    assert mark_of(method) == ""


def test_facts_count_pairs():
    method = eto.make(eto.Config())
    attempts = builders.play(method, EXPERTS, TASKS, 1, by_table(dict.fromkeys("abc", "0")))
    facts = method.facts(attempts, TASKS, 1)
    assert facts["pairs"] == 2
    assert facts["solved"] == 2
    assert facts["yield"] == {"0": {"played": 3, "completed": 3, "wins": 0}}
