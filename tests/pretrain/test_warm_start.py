"""A warm-started base has the backbone's layers and one of its embeddings for each token."""

import dataclasses

import numpy as np
import pytest
import tokenizers
from flax import nnx

from eef_jax import bases
from eef_jax.errors import ConfigError
from eef_jax.models import build
from pretrain import warm_start
from pretrain.curricula import CURRICULA
from pretrain.model import model_config

OLD = {"<|bos|>": 0, "Ġyes": 1, "Ġshoe": 2, "Ġred-fold": 3, "Ġb0001": 4, "a": 5, "Ġsofa": 6}
NEW = {"<|bos|>": 0, "Ġdove": 1, "Ġyes": 2, "a": 3, "This room is called the": 4}


def test_shared_tokens_keep_their_embedding_and_new_ones_take_over_a_words():
    sources = warm_start.embedding_sources(NEW, OLD, seed=3)
    assert (sources[0], sources[2], sources[3]) == (OLD["<|bos|>"], OLD["Ġyes"], OLD["a"])
    words = {OLD[word] for word in ("Ġshoe", "Ġred-fold", "Ġsofa")}
    assert sources[1] != sources[4] and {sources[1], sources[4]} <= words
    assert sources == warm_start.embedding_sources(NEW, OLD, seed=3)


def test_a_backbone_with_too_few_words_is_refused():
    with pytest.raises(ConfigError, match="has 1 spare words for 4 new tokens"):
        warm_start.embedding_sources(NEW, {"<|bos|>": 0, "Ġshoe": 1, "b": 2}, seed=0)


def make_tokenizer(vocab):
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="a"))


def small_model(vocab_size, **fields):
    config = model_config(CURRICULA["scienceworld"], bos_id=0, eos_id=0)
    config = dataclasses.replace(config, vocab_size=vocab_size, n_layers=1, **fields)
    return build.init(config, seed=vocab_size)


def test_the_layers_are_the_backbones():
    backbone, model = small_model(len(OLD)), small_model(len(NEW) + 2)
    started = warm_start.transplant(
        model, backbone, make_tokenizer(NEW), make_tokenizer(OLD), seed=3
    )
    old, new, before = (dict(nnx.to_flat_state(m.trainable)) for m in (backbone, started, model))
    assert set(new) == set(old)
    for path in set(old) - {warm_start.EMBEDDING}:
        np.testing.assert_array_equal(new[path][...], old[path][...])
    sources = warm_start.embedding_sources(NEW, OLD, seed=3)
    table = np.asarray(new[warm_start.EMBEDDING][...])
    for token_id, old_id in sources.items():
        np.testing.assert_array_equal(table[token_id], old[warm_start.EMBEDDING][...][old_id])
    # Rows without a token are unchanged.
    np.testing.assert_array_equal(table[len(NEW) :], before[warm_start.EMBEDDING][...][len(NEW) :])


def test_a_backbone_of_another_width_is_refused():
    with pytest.raises(ConfigError, match="of the same width and number of layers"):
        warm_start.transplant(
            small_model(9),
            small_model(9, d_ff=96),
            make_tokenizer(NEW),
            make_tokenizer(OLD),
            seed=0,
        )


def test_the_webshop_base_can_be_the_backbone_of_scienceworlds():
    """It has enough spare words, and the same number of layers."""
    vocab = tokenizers.Tokenizer.from_file(f"{bases.WEBSHOP}/tokenizer.json").get_vocab()
    new = {f"Ġnew{n}": n for n in range(500)}
    assert len(warm_start.embedding_sources(new, vocab, seed=7)) == 500
    assert CURRICULA["scienceworld"].n_layers == CURRICULA["webshop"].n_layers
