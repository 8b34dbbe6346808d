"""What the decoder does for all families alike: slots, padding, types (see also test_families)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax.models import base
from eef_jax.models.base import LoraConfig
from eef_jax.models.cache import copy_slots, init_cache
from tests.models.toys import CONFIG, forward, loud, rows, toy

# Sums of float32 are taken in another order.
CLOSE = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-4)


@pytest.fixture(scope="module")
def decoder():
    model = toy()
    return base.merge(model.graphdef, model.frozen, loud(model.trainable))


@pytest.fixture(scope="module")
def full(decoder):
    return forward(decoder)


@pytest.fixture(scope="module")
def extend(decoder):
    def run(tokens, positions, slots, cache, length):
        return decoder.extend(tokens, positions, slots, cache, length=length)

    return jax.jit(run, static_argnums=4)


@pytest.mark.parametrize("in_order", [True, False])
def test_slots_in_any_order_and_short_lengths_give_the_full_forward(full, extend, in_order):
    tokens, positions, segments = rows(3, 140)  # beyond one block of the cache
    expected = full(tokens, positions, segments)
    slots = None if in_order else jnp.array([2, 0, 4])
    cache = init_cache(CONFIG, slots=3 if in_order else 5, max_context=200)
    got = []
    for start, end in [(0, 65), (65, 130), *((i, i + 1) for i in range(130, 140))]:
        part = (tokens[:, start:end], positions[:, start:end])
        out, cache = extend(*part, slots, cache, 128 if end <= 128 else 200)
        got.append(out)
    CLOSE(jnp.concatenate(got, axis=1), expected)


def test_padding_is_not_written_and_changes_no_other_token(full, extend):
    tokens, positions, segments = rows(2, 6)
    expected = full(tokens, positions, segments)
    cache = init_cache(CONFIG, slots=2, max_context=8)
    ragged = positions[:, :4].at[1, 2:].set(-1)
    out, cache = extend(tokens[:, :4], ragged, None, cache, 8)
    CLOSE(out[0], expected[0, :4])
    CLOSE(out[1, :2], expected[1, :2])
    assert not np.any(cache[0][0][0][1, :, 2:])
    out, cache = extend(tokens[1:, 2:], positions[1:, 2:], jnp.array([1]), cache, 8)
    CLOSE(out[0], expected[1, 2:])


def test_a_copied_slot_goes_on_like_its_source(full, extend):
    tokens, positions, segments = rows(1, 8)
    expected = full(tokens, positions, segments)
    cache = init_cache(CONFIG, slots=3, max_context=8)
    _, cache = extend(tokens[:, :4], positions[:, :4], jnp.array([0]), cache, 8)
    cache = copy_slots(cache, jnp.array([0, 0]), jnp.array([2, 3]))  # slot 3 does not exist
    out, _ = extend(tokens[:, 4:], positions[:, 4:], jnp.array([2]), cache, 8)
    CLOSE(out, expected[:, 4:])


def test_bfloat16_computes_in_bfloat16_and_scores_in_float32():
    # Everything that a family may switch on.
    config = dataclasses.replace(
        CONFIG,
        attention_bias=True,
        qk_norm=True,
        post_norms=True,
        excess_norms=True,
        embedding_scale=4.0,
        attention_softcap=5.0,
        logit_softcap=5.0,
        windows=(2, None),
        local_rope_theta=100.0,
    )
    model = toy(LoraConfig(rank=2), config, dtype="bfloat16", param_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.frozen)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.trainable)} == {"float32"}
    hidden = forward(model.decoder)(*rows(1, 3))
    assert hidden.dtype == jnp.bfloat16
    assert model.decoder.logits(hidden).dtype == jnp.float32
