"""Log-probabilities of learned tokens against their definition; sums over examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax.train.losses.base import log_probs, mean_weights, sum_by_example

B, T, D, V, N = 3, 10, 8, 20, 7


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    positions = np.stack([rng.choice(np.arange(1, T), N, replace=False) for _ in range(B)])
    arrays = {
        "hidden": rng.normal(size=(B, T, D)).astype(np.float32),
        "tokens": rng.integers(0, V, (B, T)).astype(np.int32),
        "loss_positions": positions.astype(np.int32),
        "temperatures": rng.uniform(0.5, 2.0, (B, N)).astype(np.float32),
    }
    return jax.tree.map(jnp.asarray, arrays), rng.normal(size=(D, V)).astype(np.float32)


def by_definition(head, hidden, tokens, loss_positions, temperatures):
    found = np.zeros((B, N))
    for row in range(B):
        for place, column in enumerate(loss_positions[row]):
            logits = np.asarray(hidden, np.float64)[row, column - 1] @ head
            logits = logits / float(temperatures[row, place])
            found[row, place] = logits[tokens[row, column]] - np.log(np.exp(logits).sum())
    return found


@pytest.mark.parametrize("chunk", [1, 3, 4, 128])
@pytest.mark.parametrize("tempered", [False, True])
def test_log_probs(inputs, chunk, tempered):
    arrays, head = inputs
    if not tempered:
        arrays["temperatures"] = jnp.ones((B, N))
    given = arrays if tempered else arrays | {"temperatures": None}
    got = log_probs(lambda hidden: hidden @ head, **given, chunk=chunk)
    np.testing.assert_allclose(got, by_definition(head, **arrays), rtol=1e-5)


def test_chunks_change_no_gradient(inputs):
    arrays, head = inputs

    def loss(head, hidden, chunk):
        scored = log_probs(lambda x: x @ head, **arrays | {"hidden": hidden}, chunk=chunk)
        return jnp.sum(scored * jnp.arange(N, dtype=jnp.float32)[None])

    whole = jax.grad(loss, (0, 1))(jnp.asarray(head), arrays["hidden"], 128)
    parts = jax.grad(loss, (0, 1))(jnp.asarray(head), arrays["hidden"], 3)
    for left, right in zip(whole, parts, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


def test_tokens_without_weight_are_never_scored(inputs):
    arrays, head = inputs
    seen = []

    def spy(hidden):
        seen.append(hidden.shape)
        return hidden @ head

    log_probs(spy, **arrays)
    assert seen == [(B, N, D)]


def test_sums_and_means_by_example():
    segments = jnp.array([[1, 1, 2, 3, 3, 1], [1, 1, 1, 1, 1, 1]])
    values = jnp.array([[1.0, 2.0, 4.0, 8.0, 16.0, 0.0], [1.0] * 6])
    sums = sum_by_example(values, segments)
    assert sums.tolist() == [[0, 3, 4, 24, 0, 0, 0, 0], [0, 6, 0, 0, 0, 0, 0, 0]]
    mask = jnp.array([[True, True, True, True, False, True], [False] * 6])
    means = mean_weights(values, mask, segments)
    # the unused position at the end of the first row has the weight 0: it counts for nothing
    assert means.tolist() == [[0.5, 1, 4, 8, 0, 0], [0] * 6]
