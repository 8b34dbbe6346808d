"""The loss against its definition written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax.train.losses.sft import weighted_nll

B, T, D, V = 3, 10, 8, 20


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    weights = np.where(rng.random((B, T)) < 0.5, rng.random((B, T)), 0.0).astype(np.float32)
    weights[:, 0] = 0.0
    loss_positions = np.zeros((B, T), np.int32)
    for row in range(B):
        columns = np.flatnonzero(weights[row])
        loss_positions[row, : columns.size] = columns
    arrays = {
        "hidden": rng.normal(size=(B, T, D)).astype(np.float32),
        "tokens": rng.integers(0, V, (B, T)).astype(np.int32),
        "weights": weights,
        "loss_positions": loss_positions,
    }
    return jax.tree.map(jnp.asarray, arrays), rng.normal(size=(D, V)).astype(np.float32)


def by_definition(head, inputs):
    logits = inputs["hidden"] @ head
    logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = 0.0
    for row in range(B):
        for column in range(1, T):
            logp = logps[row, column - 1, inputs["tokens"][row, column]]
            total -= inputs["weights"][row, column] * logp
    return total


@pytest.mark.parametrize("chunk", [1, 3, 4, 128])
def test_sum_of_weighted_losses(inputs, chunk):
    arrays, head = inputs
    got = weighted_nll(lambda hidden: hidden @ head, **arrays, chunk=chunk)
    np.testing.assert_allclose(got, by_definition(head, arrays), rtol=1e-5)


def test_chunks_change_no_gradient(inputs):
    arrays, head = inputs

    def loss(head, hidden, chunk):
        return weighted_nll(lambda x: x @ head, **arrays | {"hidden": hidden}, chunk=chunk)

    whole = jax.grad(loss, (0, 1))(jnp.asarray(head), arrays["hidden"], 128)
    parts = jax.grad(loss, (0, 1))(jnp.asarray(head), arrays["hidden"], 3)
    for left, right in zip(whole, parts, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_tokens_without_weight_are_never_scored(inputs):
    arrays, head = inputs
    arrays["loss_positions"] = arrays["loss_positions"][:, :9]
    seen = []

    def spy(hidden):
        seen.append(hidden.shape)
        return hidden @ head

    weighted_nll(spy, **arrays)
    assert seen == [(B, 9, D)]
