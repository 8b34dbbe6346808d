"""Records are read one by one whatever the layout of the file, and damage is named by its line."""

import json

import pytest

from eef_jax.envs.webshop import json_stream
from eef_jax.errors import DataError

VALUES = [
    {"a": 1},
    [],
    'x\n\u20ac\\"]}',
    12,
    -1.5e3,
    None,
    True,
    {"b": {"c": ["[", "}"]}},
    "y" * 99,
]


def written(tmp_path, text):
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_records_are_what_json_reads(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    named = {f"k{n}\u20ac": value for n, value in enumerate(VALUES)}
    listed = written(tmp_path, " " + json.dumps(VALUES, indent=indent, ensure_ascii=False) + "\n")
    assert [r.value for r in json_stream.iter_records(listed, list, "x")] == VALUES
    entries = written(tmp_path, json.dumps(named, indent=indent))
    found = list(json_stream.iter_records(entries, dict, "x"))
    assert {r.key: r.value for r in found} == named
    assert [r.number for r in found] == list(range(len(VALUES)))


@pytest.mark.parametrize(("text", "expected"), [("[]", list), (" { }\n", dict)])
def test_empty_files_have_no_records(tmp_path, text, expected):
    assert list(json_stream.iter_records(written(tmp_path, text), expected, "x")) == []


def test_records_know_their_lines(tmp_path):
    path = written(tmp_path, '[\n1,\n\n {"a":\n 2}\n,3]')
    assert [(r.number, r.line) for r in json_stream.iter_records(path, list, "x")] == [
        (0, 2),
        (1, 4),
        (2, 6),
    ]


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[{"a": 1},\n{"a" 2}]', "line 2, record 1"),
        ("[\n1,\n2\n3]", "line 4, record 1"),
        ("[1,\n2", "line 2, record 1"),
        ('[1,\n"abc', "line 2, record 1"),
        ("[1] 2", "text after its end"),
        ("[1,]", "record 1"),
        ("", "not valid JSON"),
        ("[", "not valid JSON"),
        ('{"a": 1}', "holds a JSON dict, expected a list"),
        ("17", "holds a JSON int, expected a list"),
    ],
)
def test_damage_is_named(tmp_path, monkeypatch, chunk, text, complaint):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=complaint) as error:
        list(json_stream.iter_records(path, list, "numbers"))
    assert str(path) in str(error.value) and "numbers" in str(error.value)


@pytest.mark.parametrize("text", ["{1: 2}", '{"a" 1}', '{"a": 1, }', '{"a": 1 "b": 2}'])
def test_damaged_objects_are_refused(tmp_path, text):
    with pytest.raises(DataError, match="not valid JSON"):
        list(json_stream.iter_records(written(tmp_path, text), dict, "x"))


def test_what_is_broken_is_not_read_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 100)
    path = written(tmp_path, "[1, x" + "1, " * 10_000 + "]")
    read = []
    monkeypatch.setattr(
        json_stream._Reader,
        "_extend_window",
        lambda self, keep=json_stream._Reader._extend_window: read.append(1) or keep(self),
    )
    with pytest.raises(DataError, match="line 1, record 1"):
        list(json_stream.iter_records(path, list, "x"))
    assert len(read) < 5


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="utf-8"):
        list(json_stream.iter_records(path, list, "x"))
