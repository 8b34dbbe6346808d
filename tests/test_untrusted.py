"""Text of others: escapes and line breaks where it is printed, and no pickle in the package."""

import ast
import io
import logging
import pathlib
import re
import sys

import pytest

import eef_jax
from eef_jax import cli, untrusted
from eef_jax.errors import DataError, sentence

PACKAGE = pathlib.Path(eef_jax.__file__).parent
HOSTILE = "\x1b]0;title\x07\x1b[31mred\r\x9b2J\u2028\u202eback\x00\ud83d\nforged: line\tend"


def controls(text):
    return re.findall(r"[^\n\t\x20-\x7e\xa0-\u061b\u061d-\u200d\u2010-\u2027\u2030-\ud7ff]", text)


def test_controls_become_visible():
    assert untrusted.printable("\x1b[31mred\x07") == "\\x1b[31mred\\x07"
    assert untrusted.printable("a\nb\tc é 漢 😀") == "a\nb\tc é 漢 😀"
    assert controls(untrusted.printable(HOSTILE)) == []
    assert "\n" not in (line := untrusted.one_line(HOSTILE)) and "\t" not in line
    assert line.endswith("\\ud83d\\nforged: line\\tend")


def test_pairs_of_surrogates_are_joined():
    assert untrusted.joined("a\ud83d\ude00b") == "a😀b"
    assert untrusted.joined("\ude00\ud83d") == "\ude00\ud83d"


def test_log_lines_keep_their_arguments_on_a_line():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(untrusted.LogFormatter())
    log = logging.Logger("hostile")
    log.addHandler(handler)
    log.warning("%s: %d of %s\n  %r", HOSTILE, 3, ValueError(HOSTILE), HOSTILE)
    log.warning("%(what)s \x1b[0m", {"what": HOSTILE})
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("it raised")
    text = stream.getvalue()
    assert controls(text) == []
    assert text.count("\n") >= 4 and text.split("\n")[2].startswith("\\x1b]0;title")
    assert "forged: line" not in [line[:12] for line in text.splitlines()][:3]


def test_an_error_is_told_without_controls_or_forged_lines(monkeypatch, capsys):
    def fail():
        raise DataError(f"the id is {HOSTILE}")

    monkeypatch.setattr(cli.app, "run", lambda main, argv: fail())
    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as end:
        cli.run(fail)
    told = str(end.value.code)
    assert controls(told) == [] and told == untrusted.printable(
        sentence(DataError(f"the id is {HOSTILE}"))
    )
    assert [line for line in told.splitlines() if line.startswith("forged")] == []


def calls_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def trees():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def test_there_is_one_place_that_prints():
    written = (
        "print",
        "sys.stdout.write",
        "sys.stderr.write",
        "warnings.warn",
        "traceback.print_exc",
    )
    found = {
        name for name, tree in trees() for function, _ in calls_of(tree) if function in written
    }
    assert found == {"untrusted.py"}


def test_nothing_is_unpickled():
    """Files of others run no code: no pickle, and NumPy's and torch's readers without it."""
    modules = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    found = []
    for name, tree in trees():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [(name, n) for n in names if n.split(".")[0] in modules]
        for function, call in calls_of(tree):
            safe = {k.arg: ast.unparse(k.value) for k in call.keywords}
            if (
                function in ("np.load", "numpy.load")
                and safe.get("allow_pickle", "False") != "False"
            ):
                found.append((name, ast.unparse(call)))
            if function == "torch.load" and safe.get("weights_only") != "True":
                found.append((name, ast.unparse(call)))
            if function in ("eval", "exec", "yaml.load", "pandas.read_pickle"):
                found.append((name, ast.unparse(call)))
    assert found == []
