"""The sections of a run as plain values: their numbers agree with the run's files."""

import pytest

from eef_jax.report.page import sections, summary
from eef_jax.report.page.parts import Link
from eef_jax.report.run import read
from tests import toyrun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read(toyrun.make(tmp_path_factory.mktemp("sections") / "run"))


def rows(table, *first):
    return [list(row)[len(first) :] for row in table.rows if list(row)[: len(first)] == list(first)]


def test_yield_by_state_and_difficulty(run):
    table = sections.rollout_yield(run, 0).figures[0].numbers
    assert rows(table, "2", "easy", "s₀") == [[2, 2, 2, "100.0 % [34.2, 100.0]"]]
    assert rows(table, "2", "hard", "s₀")[0][:3] == [2, 2, 0]
    assert [rows(table, "1", "hard", f"s{k}")[0][2] for k in "₀₁₂₃"] == [0, 2, 0, 2]


def test_the_funnel(run):
    found = sections.funnel(run, 0)
    assert rows(found.figures[0].numbers, "expert") == [[2, 2, 4]]
    assert rows(found.tables[0], "eef, round 2") == [[4, 10, 6, 4, 2, 8, 6, 1000, 100]]
    assert rows(found.folded[0], "kept: beneficial expert action") == [[0, 4, 4]]


def test_tasks_through_a_failure_lead_to_the_viewer(run):
    found = sections.only_through_failure(run, 0).tables[0]
    assert [getattr(row[0], "text", "") for row in found.rows] == ["toy/train/1", "toy/train/3"]
    target = "run=0&stage=expert&id=expert%2Ftoy%2Ftrain%2F1"
    assert found.rows[0][0] == Link(text="toy/train/1", target=target)


def test_a_lost_task_leads_to_both_attempts(run):
    found = sections.worse(run, 3)
    assert "2 were gained and 1 lost" in found.notes[0]
    target = (
        "run=3&stage=round_0%2Fevaluate&id=e%2F2&with_run=3&with_stage=round_2%2Fevaluate"
        "&with_id=e%2F2"
    )
    assert found.tables[0].rows[0][0] == Link(text="toy/test/2", target=target)


def test_costs_and_training(run):
    table = sections.costs(run, 0).figures[0].numbers
    assert rows(table, "in all")[0][-1] == pytest.approx(190.5)
    assert sections.training(run, 0).notes == ["No training was logged."]
    folder = run.work.stage("round_1/tune").folder
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": "nan"}\n')
    (figure,) = sections.training(run, 0).figures
    assert figure.numbers.rows == [["eef, round 1", 1, "2.0000", "2.0000"]]


def test_config_and_conservation(run):
    found = sections.provenance(run, 0)
    assert ["method.rounds", "2"] in [list(row) for row in found.folded[0].rows]
    assert {row[-1] for row in found.folded[1].rows} == {"yes"}
    assert found.tables[0].rows[0][:3] == ["abc", "0123", "7"]


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    other = toyrun.CONFIG | {"seed": 8}
    works = [toyrun.make(tmp_path / "a"), toyrun.make(tmp_path / "b", config=other)]
    works.append(toyrun.make(tmp_path / "c"))
    runs = [read(work) for work in works]
    assert summary.labels(runs[:2]) == ["eef, seed 7", "eef, seed 8"]
    assert summary.labels([runs[0], runs[2]]) == ["eef, a", "eef, c"]
    assert summary.labels(runs[:1]) == ["eef"]
