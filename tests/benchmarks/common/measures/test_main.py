"""The table of a checkout, from the command line."""

import sys

import pytest

from benchmarks.common.measures import __main__ as command
from tests.benchmarks.common.measures import trees


def test_it_prints_every_subject(tmp_path, monkeypatch, capsys):
    trees.make(tmp_path, {"eef_jax/__init__.py": "", "eef_jax/a.py": "def f():\n    return 1\n"})
    (tmp_path / "pyproject.toml").write_text("[tool.importlinter]\ncontracts = []\n")
    monkeypatch.setattr(sys, "argv", ["measures", str(tmp_path)])
    command.main()
    printed = capsys.readouterr().out
    assert all(f"**{subject}**" in printed for subject in command.SUBJECTS)


def test_another_folder_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measures", str(tmp_path)])
    with pytest.raises(SystemExit):
        command.main()
    assert "name the root of a checkout" in capsys.readouterr().err
