import random

import numpy as np
import pytest
import tokenizers

from eef_jax import bases
from pretrain.batches import batches, encode
from pretrain.curricula import CURRICULA
from pretrain.segments import AuxiliaryLabel, Segment
from pretrain.webshop import exercises

TOKENIZER_FILE = f"{bases.WEBSHOP}/tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.Tokenizer.from_file(TOKENIZER_FILE)


def test_an_exercise_has_the_same_tokens_as_its_whole_text(tokenizer):
    exercise = exercises.which(random.Random(1), 2)
    ids, targets = encode(tokenizer, exercise)
    text = "".join(segment.text for segment in exercise)
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    answer = tokenizer.encode(exercise[-1].text, add_special_tokens=False).ids
    assert [label for _, label, _ in targets[-len(answer) :]] == answer
    assert [at for at, _, _ in targets[-len(answer) :]] == list(
        range(len(ids) - len(answer) - 1, len(ids) - 1)
    )


def test_auxiliary_labels_are_predicted_at_their_index(tokenizer):
    label_id = tokenizer.encode("b1234", add_special_tokens=False).ids[0]
    text = "[SEP] $34.0 [SEP]"
    label = AuxiliaryLabel(index=text.index(".0") + 1, text="b1234", loss_weight=0.5)
    ids, targets = encode(tokenizer, [Segment(text, 0.0, (label,))])
    assert [(tokenizer.id_to_token(ids[at]), label, w) for at, label, w in targets] == [
        (".0", label_id, 0.5)
    ]


def test_batches_depend_on_seed_and_number_alone():
    curriculum = CURRICULA["webshop"]
    first = batches(TOKENIZER_FILE, curriculum, 3, 5000)
    next(first)
    again = next(batches(TOKENIZER_FILE, curriculum, 3, 5001))
    for name, value in next(first).items():
        np.testing.assert_array_equal(value, again[name])
