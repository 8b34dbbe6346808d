"""The decoder apart from families: cached decoding, padding, types (see also test_families)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax import kernels
from eef_jax.config.sections import LoraConfig
from eef_jax.models.cache import copy_pages
from eef_jax.models.model import merge
from tests.models import paged
from tests.models.toys import CONFIG, forward, loud, rows, toy

# Sums of float32 are taken in another order.
CLOSE = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-4)


@pytest.fixture(scope="module")
def decoder():
    model = toy()
    return merge(model.graphdef, model.frozen, loud(model.trainable))


@pytest.fixture(scope="module")
def full(decoder):
    return forward(decoder)


@pytest.fixture(scope="module")
def extend(decoder):
    run = functools.partial(paged.extend, decoder)
    return jax.jit(run, static_argnames="attention")


@pytest.mark.parametrize("attention", sorted(kernels.PAGED_IMPLEMENTATIONS))
def test_prefill_and_decode_equal_the_full_forward(full, extend, attention):
    tokens, positions, segments = rows(3, 50)
    expected = full(tokens, positions, segments)
    cache, table = paged.cache(CONFIG, 3, 50, attention=attention)
    got = []
    for start, end in [(0, 25), (25, 40), *((i, i + 1) for i in range(40, 50))]:
        part = (tokens[:, start:end], positions[:, start:end])
        out, cache = extend(cache, *part, table, attention=attention)
        got.append(out)
    CLOSE(jnp.concatenate(got, axis=1), expected)


@pytest.mark.parametrize("attention", sorted(kernels.PAGED_IMPLEMENTATIONS))
def test_rows_without_a_token_write_nothing(extend, attention):
    tokens, positions, _ = rows(3, 1)
    cache, table = paged.cache(CONFIG, 3, 8, attention=attention)
    _, cache = extend(cache, tokens, positions.at[1].set(-1), table, attention=attention)
    keys = cache[0].keys
    assert [bool(np.any(keys[page])) for page in table[:, 0]] == [True, False, True]


def test_padding_is_not_written_and_changes_no_other_token(full, extend):
    tokens, positions, segments = rows(2, 6)
    expected = full(tokens, positions, segments)
    cache, table = paged.cache(CONFIG, 2, 8)
    ragged = positions[:, :4].at[1, 2:].set(-1)
    out, cache = extend(cache, tokens[:, :4], ragged, table)
    CLOSE(out[0], expected[0, :4])
    CLOSE(out[1, :2], expected[1, :2])
    assert not np.any(cache[0].keys[table[1, 0], :, :, 2:])
    out, cache = extend(cache, tokens[1:, 2:], positions[1:, 2:], table[1:])
    CLOSE(out[0], expected[1, 2:])


def test_decoding_continues_from_a_copied_page(full, extend):
    tokens, positions, segments = rows(1, 8)
    expected = full(tokens, positions, segments)
    cache, table = paged.cache(CONFIG, 3, 8)
    _, cache = extend(cache, tokens[:, :4], positions[:, :4], table[:1])
    source = np.array([table[0, 0]] * 2)
    cache = copy_pages(cache, source, np.array([table[2, 0], 3]))  # there is no page 3
    out, _ = extend(cache, tokens[:, 4:], positions[:, 4:], table[2:])
    CLOSE(out, expected[:, 4:])


def test_bfloat16_computes_in_bfloat16_and_scores_in_float32():
    # All options that a family may switch on.
    config = dataclasses.replace(
        CONFIG,
        attention_bias=True,
        qk_norm=True,
        post_norms=True,
        zero_centered_norms=True,
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
