"""The table of commands covers what the documents show; its rows are what they say."""

import subprocess

import pytest

from eef_jax.errors import ConfigError
from tests.docs import documents
from tests.docs.documents import REASONS, SHOWN, Row

ROWS, SMALL = documents.table()


def test_every_block_has_a_language_that_is_checked():
    known = {documents.SHELL, documents.CONSOLE, documents.PROGRAM, *SHOWN}
    wrong = [f"{place}: {language!r}" for place, language, _ in documents.blocks()
             if language not in known]  # fmt: skip
    assert not wrong, f"expected one of {sorted(known)} after ```"


def test_every_command_is_in_the_table():
    known = {row.text for row in ROWS}
    missing = [f"{shown.place}: {shown.text}" for shown in documents.commands()
               if shown.text not in known]  # fmt: skip
    assert not missing, "add a row to tests/docs/commands.toml for each of these"


def test_no_row_outlives_its_command():
    shown = {shown.text for shown in documents.commands()}
    assert [row.text for row in ROWS if row.text and row.text not in shown] == []
    texts = [row.text for row in ROWS if row.text]
    assert len(texts) == len(set(texts))


def test_what_is_replaced_in_programs_is_there():
    assert documents.unused_words() == []


def test_every_preset_is_played_from_expert_to_report():
    played = {documents.preset_of(documents.played(row, SMALL)) for row in ROWS if not row.not_run}
    assert set(documents.presets()) - played == set()


def test_what_is_not_run_has_a_reason_and_is_little():
    not_run = [row for row in ROWS if row.not_run]
    assert {row.not_run for row in not_run} <= set(REASONS)
    assert len(not_run) <= documents.MOST_NOT_RUN


def test_the_demo_is_played_by_its_recipe():
    recipe = subprocess.run(
        ["make", "--dry-run", "demo"],
        cwd=documents.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[-1]
    (row,) = (row for row in ROWS if row.text == "make demo")
    assert recipe.partition("/bin/")[2] == row.play


def test_commands_of_a_block():
    block = "python a.py \\\n  --x=1   # why\nmake\n\n# only a comment\n"
    assert list(documents.typed(block)) == ["python a.py --x=1", "make", "# only a comment"]
    assert list(documents.typed("$ a b\noutput\n", prompt="$ ")) == ["a b"]


def test_a_played_command_has_small_settings_and_replaced_words():
    row = Row(text="run --out=OUT 'a b'", words={"OUT": "x"}, small=("s",), flags=("--z",))
    assert documents.played(row, {"s": ["--y"]}) == "run --out=x 'a b' --y --z"
    with pytest.raises(ConfigError, match="no 'FOLDER' to replace"):
        documents.played(Row(text="run", words={"FOLDER": "x"}), {})
