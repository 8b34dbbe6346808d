import random

import numpy as np
import pytest
import tokenizers

from eef_jax import bases
from pretrain import exercises
from pretrain import main as pretrain
from pretrain.course import COURSES
from pretrain.pieces import Mark, Piece


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.Tokenizer.from_file(f"{bases.WEBSHOP}/tokenizer.json")


def test_an_exercise_is_read_as_the_policy_would_read_it(tokenizer):
    pieces = exercises.which(random.Random(1), 2)
    ids, learned = pretrain.encode(tokenizer, pieces)
    text = "".join(piece.text for piece in pieces)
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    answer = tokenizer.encode(pieces[-1].text, add_special_tokens=False).ids
    assert [label for _, label, _ in learned[-len(answer) :]] == answer
    assert [at for at, _, _ in learned[-len(answer) :]] == list(
        range(len(ids) - len(answer) - 1, len(ids) - 1)
    )


def test_marks_are_learned_where_they_stand(tokenizer):
    name = tokenizer.encode("b1234", add_special_tokens=False).ids[0]
    text = "[SEP] $34.0 [SEP]"
    mark = Mark(text.index(".0") + 1, "b1234", 0.5)
    ids, learned = pretrain.encode(tokenizer, [Piece(text, 0.0, (mark,))])
    assert [(tokenizer.id_to_token(ids[at]), label, w) for at, label, w in learned] == [
        (".0", name, 0.5)
    ]


def test_batches_depend_on_seed_and_number_alone():
    file, course = f"{bases.WEBSHOP}/tokenizer.json", COURSES["webshop"]
    first = pretrain.batches(file, course, 3, 5000)
    next(first)
    for name, value in next(first).items():
        np.testing.assert_array_equal(value, next(pretrain.batches(file, course, 3, 5001))[name])
