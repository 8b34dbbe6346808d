import random

import pytest
import tokenizers

from eef_jax import bases
from pretrain import tokenizer as tokenizer_training
from pretrain.webshop import exercises, pages


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.Tokenizer.from_file(f"{bases.WEBSHOP}/tokenizer.json")


def test_a_newly_trained_tokenizer_has_the_requested_size():
    rng, words = random.Random(0), exercises.copy_words()
    sampled = [exercises.sample(rng, words, False, 0.1) for _ in range(200)]
    texts = ["".join(segment.text for segment in exercise) for exercise in sampled]
    trained = tokenizer_training.train(texts, 700, pages.FIXED_PHRASES)
    assert trained.get_vocab_size() == 700


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
def test_actions_survive_encoding_and_decoding(tokenizer, action):
    ids = tokenizer.encode(action, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == action


def test_a_name_has_the_same_token_on_a_page_and_in_an_action(tokenizer):
    page = tokenizer.encode("[SEP] red [SEP] B0471 [SEP] Norva", add_special_tokens=False).tokens
    for text in ("click[red]", "click[b0471]"):
        inside = tokenizer.encode(text, add_special_tokens=False).tokens[1:-1]
        assert set(inside) <= set(page)


def test_any_text_encodes(tokenizer):
    text = "naïve ☕ 日本 ~`"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


@pytest.mark.parametrize("phrase", pages.FIXED_PHRASES)
def test_a_fixed_phrase_is_one_token(tokenizer, phrase):
    alone = tokenizer.encode("x", add_special_tokens=False).ids
    around = tokenizer.encode(f"x {phrase} x", add_special_tokens=False).ids
    assert around == [*alone, tokenizer.token_to_id(phrase), *alone]
