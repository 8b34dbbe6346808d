"""A grafted base has the body's layers and an embedding that the body knew for each token."""

import dataclasses

import numpy as np
import pytest
import tokenizers
from flax import nnx

from eef_jax import bases
from eef_jax.errors import ConfigError
from eef_jax.models import build
from pretrain import graft
from pretrain import main as pretrain
from pretrain.course import COURSES

OLD = {"<|bos|>": 0, "Ġyes": 1, "Ġshoe": 2, "Ġred-fold": 3, "Ġb0001": 4, "a": 5, "Ġsofa": 6}
NEW = {"<|bos|>": 0, "Ġdove": 1, "Ġyes": 2, "a": 3, "This room is called the": 4}


def test_shared_tokens_stay_and_new_ones_take_over_words():
    given = graft.assign(NEW, OLD, seed=3)
    assert (given[0], given[2], given[3]) == (OLD["<|bos|>"], OLD["Ġyes"], OLD["a"])
    words = {OLD[word] for word in ("Ġshoe", "Ġred-fold", "Ġsofa")}
    assert given[1] != given[4] and {given[1], given[4]} <= words
    assert given == graft.assign(NEW, OLD, seed=3)


def test_a_body_with_too_few_words_is_refused():
    with pytest.raises(ConfigError, match="knows 1 words that are free, for 4 new tokens"):
        graft.assign(NEW, {"<|bos|>": 0, "Ġshoe": 1, "b": 2}, seed=0)


def tokenizer(names):
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token="a"))


def small(vocab, **fields):
    config = dataclasses.replace(
        pretrain.shape(COURSES["scienceworld"], 0, 0), vocab_size=vocab, n_layers=1, **fields
    )
    return build.init(config, seed=vocab)


def test_the_layers_are_the_bodys():
    body, model = small(len(OLD)), small(len(NEW) + 2)
    made = graft.graft(model, body, tokenizer(NEW), tokenizer(OLD), seed=3)
    old, new, was = (dict(nnx.to_flat_state(m.trainable)) for m in (body, made, model))
    assert set(new) == set(old)
    for path in set(old) - {graft.EMBED}:
        np.testing.assert_array_equal(new[path][...], old[path][...])
    given = graft.assign(NEW, OLD, seed=3)
    table = np.asarray(new[graft.EMBED][...])
    for token, place in given.items():
        np.testing.assert_array_equal(table[token], old[graft.EMBED][...][place])
    # Rows that no token has are as they were.
    np.testing.assert_array_equal(table[len(NEW) :], was[graft.EMBED][...][len(NEW) :])


def test_a_body_of_another_width_is_refused():
    with pytest.raises(ConfigError, match="of the same width and number of layers"):
        graft.graft(small(9), small(9, d_ff=96), tokenizer(NEW), tokenizer(OLD), seed=0)


def test_the_shop_base_carries_the_science_course():
    """It has words enough to give away, and as many layers."""
    known = tokenizers.Tokenizer.from_file(f"{bases.WEBSHOP}/tokenizer.json").get_vocab()
    assert len(graft.assign({f"Ġnew{n}": n for n in range(500)}, known, seed=7)) == 500
    assert COURSES["scienceworld"].layers == COURSES["webshop"].layers
