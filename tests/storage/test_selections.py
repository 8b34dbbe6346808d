"""Selections: written and read back as JSON lines."""

import dataclasses
import tempfile

import pytest

from eef_jax.errors import DataError
from eef_jax.storage.selections import (
    FILE,
    LOSS,
    read_loss,
    read_selections,
    write_loss,
    write_selections,
)
from eef_jax.types import KEPT_ALL, Loss, Selection
from tests import toyrun
from tests.properties import TEXTS, holds


def selection():
    trajectory = toyrun.attempt(toyrun.tasks("train")[0], ["search[a]", "click[b]"], True)
    return Selection(
        trajectory=trajectory, weights=(0.0, 1.0), reasons=("masked: x", KEPT_ALL), role="s0"
    )


def test_selections_come_back(tmp_path):
    write_selections(tmp_path, [selection(), selection()])
    first, second = read_selections(tmp_path)
    assert first == second
    assert (first["role"], first["state"], first["pair"]) == ("s0", 0, None)
    assert [(s["action"], s["weight"], s["reason"]) for s in first["steps"]] == [
        ("search[a]", 0.0, "masked: x"),
        ("click[b]", 1.0, KEPT_ALL),
    ]


def test_a_damaged_line_is_named_with_the_stage_to_run_again(tmp_path):
    write_selections(tmp_path, [selection()])
    path = tmp_path / FILE
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(DataError, match=r"selections\.jsonl, line 2 is damaged .*runs again"):
        read_selections(tmp_path)


def test_marks_and_advantages_are_written_where_there_are_some(tmp_path):
    plain = selection()
    write_selections(
        tmp_path, [plain, dataclasses.replace(plain, advantages=(0.0, -0.5), mark="well")]
    )
    first, second = read_selections(tmp_path)
    assert "mark" not in first and "advantage" not in first["steps"][0]
    assert second["mark"] == "well"
    assert [step["advantage"] for step in second["steps"]] == [0.0, -0.5]


@pytest.mark.parametrize("loss", [Loss(), Loss(name="dpo", options={"beta": 0.1})])
def test_the_loss_comes_back(tmp_path, loss):
    write_loss(tmp_path, loss)
    read = read_loss(tmp_path)
    assert read == loss and read.options == loss.options
    assert (tmp_path / LOSS).exists() == (loss.name != "sft")


@holds(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
def test_any_text_comes_back(id, task, action, role, reason):
    trajectory = toyrun.attempt(
        dataclasses.replace(toyrun.tasks("train")[0], id=task), [action], True, id=id or "x"
    )
    made = Selection(trajectory=trajectory, weights=(1.0,), reasons=(reason,), role=role)
    with tempfile.TemporaryDirectory() as folder:
        write_selections(folder, [made])
        (read,) = read_selections(folder)
    (step,) = read["steps"]
    assert (read["trajectory"], read["task"], read["role"]) == (id or "x", task, role)
    assert (step["action"], step["reason"]) == (action, reason)
