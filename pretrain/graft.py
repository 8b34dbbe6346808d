"""The layers of one nano base under the words of another: what one course taught, another uses.

Finding a word again, repeating it and saying yes or no of it are the layers' work, and do not
depend on which words these are. So a base for another environment starts from the layers, with an
embedding for each token of its own: the old one where both bases have the token, else that of some
word which the old base knew and the new one does not need. The layers can tell such words apart and
repeat them from the first batch on; what they mean is still to be learned. Knows weights and
vocabularies, no exercises.
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
EMBED = ("embed",)


def graft(model: Model, body: Model, tokens: Any, known: Any, *, seed: int) -> Model:
    """The body's layers in a model with other tokens.

    Args:
        model: of the wanted vocabulary, all of it trainable; its layers are replaced.
        body: whose layers are taken, all of it trainable.
        tokens: the model's tokenizer (`tokenizers.Tokenizer`).
        known: the body's.
        seed: decides which word a new token takes over.

    Raises:
        ConfigError: the two models differ in shape, or the body knows too few words.
    """
    old = dict(nnx.to_flat_state(body.trainable))
    fresh = dict(nnx.to_flat_state(model.trainable))
    shapes = [{p: w[...].shape for p, w in side.items() if p != EMBED} for side in (old, fresh)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"the body's layers ({body.config}) do not fit under a model of {model.config}: give a "
            "body of the same width and number of layers"
        )
    table = np.asarray(fresh[EMBED][...]).copy()
    words = np.asarray(old[EMBED][...])
    for new, place in assign(tokens.get_vocab(), known.get_vocab(), seed=seed).items():
        table[new] = words[place]
    weights = {**old, EMBED: fresh[EMBED].replace(jnp.asarray(table))}
    return dataclasses.replace(model, trainable=nnx.from_flat_state(weights))


def assign(tokens: dict[str, int], known: dict[str, int], *, seed: int) -> dict[int, int]:
    """For each id of `tokens`, the id of `known` whose embedding it starts from.

    Raises:
        ConfigError: `known` has fewer words to give away than there are new tokens.
    """
    new = sorted(set(tokens) - set(known), key=tokens.__getitem__)
    spare = sorted(t for t in set(known) - set(tokens) if _WORD.fullmatch(t))
    if len(spare) < len(new):
        raise ConfigError(
            f"the body knows {len(spare)} words that are free, for {len(new)} new tokens: give a "
            "body with a larger vocabulary"
        )
    given = np.random.default_rng(seed).permutation(spare)[: len(new)]
    kept = {tokens[t]: known[t] for t in set(tokens) & set(known)}
    return kept | {tokens[t]: known[str(g)] for t, g in zip(new, given, strict=True)}
