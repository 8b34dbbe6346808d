"""What a run's rounds say of its attempts: chains, selections, and facts for filters."""

import pytest

from eef_jax.report.judged import Fact, Judged, through_failure
from eef_jax.report.run import read
from tests import toyrun

HARD = Fact.THROUGH_FAILURE | Fact.RECOVERY | Fact.HARMFUL


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read(toyrun.make(tmp_path_factory.mktemp("judged") / "run"))


def test_facts_of_attempts(run):
    facts = Judged(run).facts
    assert facts["expert/toy/train/0"] == Fact.SELECTED
    assert facts["expert/toy/train/1"] == HARD
    recovery = "round_1/toy/train/1/expert/toy/train/1@3/0"
    assert facts[recovery] == Fact.SELECTED | Fact.THROUGH_FAILURE | Fact.RECOVERY
    assert facts["round_1/toy/train/1/s0/0"] == Fact.THROUGH_FAILURE  # its task's, not its own
    assert len(facts) == 24  # held-out attempts are not judged


def test_tasks_solved_only_through_a_failure(run):
    assert through_failure(run) == {"toy/train/1", "toy/train/3"}


def test_chains_and_selections_by_round(run):
    judged = Judged(run)
    assert [chain.round for chain in judged.chains["expert/toy/train/0"]] == [0, 1, 2]
    assert [chain.round for chain in judged.chains["expert/toy/train/1"]] == [1, 2]
    numbers = [number for number, _ in judged.selected["expert/toy/train/2"]]
    assert numbers == [0, 1, 2]
    assert judged.stages == ["expert", "round_1/explore", "round_2/explore"]


def test_a_run_that_has_just_begun(tmp_path):
    begun = read(toyrun.make(tmp_path / "run", until="round_0/select"))
    judged = Judged(begun)
    assert set(judged.facts.values()) == {Fact(0)} and not judged.selected
    assert through_failure(begun) == set()
