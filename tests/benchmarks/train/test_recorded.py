"""The trajectories that training is measured on."""

import numpy as np

from benchmarks.train import recorded
from eef_jax import bases


def test_they_are_the_same_each_time_and_learned():
    one, two = (recorded.record(bases.find("nano:webshop"), 2) for _ in range(2))
    assert len(one) == 2
    for left, right in zip(one, two, strict=True):
        assert left.id == right.id
        np.testing.assert_array_equal(left.tokens, right.tokens)
        assert not left.weights[0] and left.weights.max() == 1
