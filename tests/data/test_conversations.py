"""Chats from JSON lines as examples."""

import json

import pytest

from eef_jax.data.conversations import read_examples
from eef_jax.errors import DataError
from tests.data.test_encode import END, SAY, USER, ToyChat

CHAT = [
    {"role": "user", "content": "how many"},
    {"role": "assistant", "content": "two or three"},
]


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_the_assistant_is_learned_with_the_given_weight(tmp_path):
    one = write(tmp_path / "one.jsonl", json.dumps({"messages": CHAT}), "")
    two = write(tmp_path / "two.jsonl", json.dumps({"messages": CHAT[:2] * 2}))
    examples = read_examples(
        f"{one}, {two}", ToyChat(), weight=0.5, max_length=50, columns=("advantages",)
    )
    assert examples[0].tokens.tolist() == [USER, 13, 14, END, SAY, 13, 12, 15, END]
    assert examples[0].weights.tolist() == [0] * 5 + [0.5] * 4
    assert examples[0].columns["advantages"].tolist() == [0.0] * 9
    assert len(examples[1].tokens) == 18
    assert {e.provenance["role"] for e in examples} == {"conversation"}
    assert len({e.id for e in examples}) == 2
    assert read_examples("", ToyChat(), weight=1.0, max_length=50) == []


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("{", "expected"),
        (json.dumps({"conversations": CHAT}), "'messages'"),
        (json.dumps({"messages": [{"role": "tool", "content": "x"}]}), "role 'tool'"),
        (json.dumps({"messages": [{"role": "user", "content": None}]}), "NoneType"),
        (json.dumps({"messages": CHAT[:1]}), "0 of them an assistant's"),
        (json.dumps({"messages": CHAT * 10}), "raise config.train.seq_len"),
    ],
)
def test_other_lines_are_refused_by_file_and_line(tmp_path, line, hint):
    path = write(tmp_path / "x.jsonl", json.dumps({"messages": CHAT}), line)
    with pytest.raises(DataError, match=rf"x\.jsonl, line 2.*{hint}"):
        read_examples(path, ToyChat(), weight=1.0, max_length=50)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train\.conversations: cannot read .*missing\.jsonl"):
        read_examples(str(tmp_path / "missing.jsonl"), ToyChat(), weight=1.0, max_length=50)
