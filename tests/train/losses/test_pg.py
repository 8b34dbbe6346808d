"""The policy-gradient loss, computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax.train.losses import pg
from eef_jax.train.losses.base import REFERENCE

# Example 1: three sampled tokens; 2: one sampled and two of an expert; an unused position.
LEARNED = {
    "segment_ids": jnp.array([[1, 1, 1, 2, 2, 2, 1]]),
    "weights": jnp.array([[1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.0]]),
    "advantages": jnp.array([[2.0, 2.0, 2.0, -1.0, 0.0, 0.0, 2.0]]),
    "temperatures": jnp.array([[0.8, 0.8, 0.8, 0.8, 0.0, 0.0, 0.8]]),
    "sampled_logps": jnp.log(jnp.array([[0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5]])),
    REFERENCE: jnp.log(jnp.array([[0.5, 0.25, 0.5, 0.25, 1.0, 1.0, 0.5]])),
}
LOGPS = jnp.log(jnp.array([[0.5, 0.7, 0.3, 0.3, 0.2, 0.1, 0.5]]))
# Ratios 1, 1.4, 0.6 and 0.6; bounds 0.9 and 1.3: above, 1.4 counts as 1.3; below, 0.6 counts as
# itself where the advantage is positive, and as 0.9 where it is negative.
SURROGATES = [-2 * 1.0, -2 * 1.3, -2 * 0.6, 0.9]
EXPERT = [-np.log(0.2), -np.log(0.1)]


def loss_of(**options):
    return pg.make(clip_low=0.1, clip_high=0.3, **options)


def test_token_normalization_and_separate_bounds():
    loss = loss_of()
    numerator, metrics = loss.numerator(LOGPS, LEARNED)
    np.testing.assert_allclose(numerator, sum(SURROGATES) + 0.5 * sum(EXPERT), rtol=1e-5)
    assert float(loss.denominator(LEARNED)) == 5
    assert metrics["clipped"] == (2, 4)
    np.testing.assert_allclose(metrics["ratio"], (3.6, 4), rtol=1e-5)


def test_sequence_normalization():
    loss = loss_of(normalization="sequence")
    numerator, _ = loss.numerator(LOGPS, LEARNED)
    expected = sum(SURROGATES[:3]) / 3 + SURROGATES[3] + 0.5 * sum(EXPERT) / 2
    np.testing.assert_allclose(numerator, expected, rtol=1e-5)
    np.testing.assert_allclose(loss.denominator(LEARNED), 1 + 1 + 0.5)


def test_divergence_from_the_base():
    loss = loss_of(kl=0.1)
    numerator, metrics = loss.numerator(LOGPS, LEARNED)
    q = np.array([0.5, 0.25, 0.5, 0.25]) / np.array([0.5, 0.7, 0.3, 0.3])
    divergence = np.sum(q - np.log(q) - 1)
    expected = sum(SURROGATES) + 0.5 * sum(EXPERT) + 0.1 * divergence
    np.testing.assert_allclose(numerator, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], (divergence, 4), rtol=1e-5)
    assert REFERENCE in loss.columns and REFERENCE not in loss_of().columns


def test_only_unclipped_and_expert_tokens_have_a_gradient():
    grads = jax.grad(lambda logps: loss_of().numerator(logps, LEARNED)[0])(LOGPS)
    np.testing.assert_allclose(grads, [[-2, 0, -1.2, 0, -0.5, -0.5, 0]], rtol=1e-5)


def test_sampled_tokens_are_scored_at_their_temperature():
    temperatures = loss_of().temperatures(LEARNED)
    np.testing.assert_allclose(temperatures, [[0.8] * 4 + [1.0] * 3], rtol=1e-6)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="clip"):
        pg.make(clip=0.1)
