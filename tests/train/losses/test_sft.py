"""The loss against its definition written out."""

import jax.numpy as jnp
import numpy as np

from eef_jax.train.losses import sft


def test_weighted_mean_of_negative_log_likelihoods():
    logps = jnp.log(jnp.array([[0.5, 0.25, 0.1], [0.2, 1.0, 0.3]]))
    weights = jnp.array([[1.0, 0.5, 0.0], [2.0, 0.0, 0.0]])
    learned = {"weights": weights, "segment_ids": jnp.ones((2, 3), int)}
    loss = sft.make()
    numerator, metrics = loss.numerator(logps, learned)
    expected = -(np.log(0.5) + 0.5 * np.log(0.25) + 2 * np.log(0.2))
    np.testing.assert_allclose(numerator, expected, rtol=1e-6)
    assert float(loss.denominator(learned)) == 3.5
    assert metrics == {}
