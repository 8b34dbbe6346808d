"""The loss of pairs, computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax.train.losses import dpo
from eef_jax.train.losses.base import REFERENCE

# A row with a pair, other data, and a pair whose sides have two and one learned tokens; an unused
# position at its end.
LEARNED = {
    "segment_ids": jnp.array([[1, 2, 3, 3, 4, 4, 5, 1]]),
    "weights": jnp.array([[1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0, 0.0]]),
    "advantages": jnp.array([[1.0, -1.0, 0.0, 0.0, 1.0, 1.0, -1.0, 1.0]]),
    REFERENCE: jnp.array([[-1.0, -2.0, -9.0, -9.0, -1.0, -1.0, -4.0, -3.0]]),
}
LOGPS = jnp.array([[-0.5, -3.0, -2.0, -4.0, -1.5, -2.0, -3.0, -7.0]])


def softplus(x):
    return np.log1p(np.exp(x))


def test_pairs_and_other_data_by_hand():
    loss = dpo.make(beta=0.5)
    numerator, metrics = loss.numerator(LOGPS, LEARNED)
    first, second = 0.5 * (0.5 + 1.0), 0.5 * (-0.5 - 1.0 - 1.0)
    other = 0.5 * (2.0 + 4.0) / 2
    expected = softplus(-first) + softplus(-second) + other
    np.testing.assert_allclose(numerator, expected, rtol=1e-6)
    assert float(loss.denominator(LEARNED)) == 2.5  # two pairs, an example of the weight 0.5
    margin, pairs = metrics["margin"]
    np.testing.assert_allclose(margin, first + second, rtol=1e-6)
    assert pairs == 2 and metrics["accuracy"][0] == 1


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_at_the_reference_the_margin_is_zero_and_the_loss_log_2(beta):
    numerator, metrics = dpo.make(beta=beta).numerator(LEARNED[REFERENCE], LEARNED)
    assert metrics["margin"][0] == 0.0
    np.testing.assert_allclose(numerator, 2 * np.log(2) + 9 * 0.5, rtol=1e-6)
