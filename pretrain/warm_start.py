"""Starts a base from the layers of another base that has a different vocabulary.

Finding a word again, repeating it and judging it are done by the layers and do not depend on which
words these are. So a base for another environment takes over the layers (the backbone) and gets a
new embedding table: a token that both vocabularies have keeps its embedding, and any other token
takes over the embedding of a word that only the old vocabulary has. The layers can tell such words
apart and repeat them from the first batch on; what they mean remains to be learned.

Measured on ScienceWorld: 63 % of the targets right after 100 batches (half of them copies) and 89 %
after 250; from random weights 46 % after 350 such batches.
"""

import dataclasses
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from eef_jax.errors import ConfigError
from eef_jax.models.model import Model

_WORD = re.compile(r"Ġ[a-z][a-z'-]+")
EMBEDDING = ("embed",)


def transplant(
    model: Model, backbone: Model, tokenizer: Any, backbone_tokenizer: Any, *, seed: int
) -> Model:
    """Return a model with the backbone's layers and its own vocabulary.

    Args:
        model: model of the wanted vocabulary, all of its weights trainable; its layers are
            replaced.
        backbone: model that provides the layers, all of its weights trainable.
        tokenizer: the model's `tokenizers.Tokenizer`.
        backbone_tokenizer: the backbone's `tokenizers.Tokenizer`.
        seed: decides which word's embedding a new token takes over.

    Raises:
        ConfigError: the two models differ in shape, or the backbone has too few spare words.
    """
    old = dict(nnx.to_flat_state(backbone.trainable))
    new = dict(nnx.to_flat_state(model.trainable))
    shapes = [{p: w[...].shape for p, w in side.items() if p != EMBEDDING} for side in (old, new)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"the backbone's layers ({backbone.config}) do not fit a model of {model.config}: give "
            "a backbone of the same width and number of layers"
        )
    table = np.asarray(new[EMBEDDING][...]).copy()
    old_table = np.asarray(old[EMBEDDING][...])
    sources = embedding_sources(tokenizer.get_vocab(), backbone_tokenizer.get_vocab(), seed=seed)
    for token_id, old_id in sources.items():
        table[token_id] = old_table[old_id]
    weights = {**old, EMBEDDING: new[EMBEDDING].replace(jnp.asarray(table))}
    return dataclasses.replace(model, trainable=nnx.from_flat_state(weights))


def embedding_sources(
    vocab: dict[str, int], backbone_vocab: dict[str, int], *, seed: int
) -> dict[int, int]:
    """Return for each id of `vocab` the id of `backbone_vocab` whose embedding it starts from.

    Raises:
        ConfigError: `backbone_vocab` has fewer spare words than there are new tokens.
    """
    new = sorted(set(vocab) - set(backbone_vocab), key=vocab.__getitem__)
    spare = sorted(t for t in set(backbone_vocab) - set(vocab) if _WORD.fullmatch(t))
    if len(spare) < len(new):
        raise ConfigError(
            f"the backbone has {len(spare)} spare words for {len(new)} new tokens: give a backbone "
            "with a larger vocabulary"
        )
    chosen = np.random.default_rng(seed).permutation(spare)[: len(new)]
    shared = {vocab[t]: backbone_vocab[t] for t in set(vocab) & set(backbone_vocab)}
    return shared | {
        vocab[t]: backbone_vocab[str(word)] for t, word in zip(new, chosen, strict=True)
    }
