import random

import pytest
import tokenizers

from eef_jax import bases
from pretrain import exercises, vocabulary
from pretrain.course import COURSES


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.Tokenizer.from_file(f"{bases.WEBSHOP}/tokenizer.json")


def test_training_again_gives_a_tokenizer_of_the_wanted_size():
    rng = random.Random(0)
    known = COURSES["webshop"].words()
    texts = ["".join(p.text for p in exercises.draw(rng, known, False, 0.1)) for _ in range(200)]
    assert vocabulary.train(texts, 700).get_vocab_size() == 700


@pytest.mark.parametrize(
    "action",
    [
        "click[b0471]",
        "click[next >]",
        "click[< prev]",
        "search[quick-fit soft-touch towel]",
        "click[buy now]",
        "search[men's 2-pack (x/l)]",
    ],
)
def test_actions_come_back_as_they_were(tokenizer, action):
    ids = tokenizer.encode(action, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == action


def test_a_name_is_the_same_token_on_a_page_and_in_an_action(tokenizer):
    page = tokenizer.encode("[SEP] red [SEP] B0471 [SEP] Norva", add_special_tokens=False).tokens
    for text in ("click[red]", "click[b0471]"):
        inside = tokenizer.encode(text, add_special_tokens=False).tokens[1:-1]
        assert set(inside) <= set(page)


def test_any_text_encodes(tokenizer):
    text = "naïve ☕ 日本 ~`"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


@pytest.mark.parametrize("piece", vocabulary.FURNITURE)
def test_furniture_is_one_token(tokenizer, piece):
    alone = tokenizer.encode("x", add_special_tokens=False).ids
    around = tokenizer.encode(f"x {piece} x", add_special_tokens=False).ids
    assert around == [*alone, tokenizer.token_to_id(piece), *alone]
