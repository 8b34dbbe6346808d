"""Sampling: the right distribution, the right log-probabilities, keys of the request alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax.engine.sampling import SamplingArrays, SamplingParams, sample
from eef_jax.errors import ConfigError

LOGITS = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
jit_sample = jax.jit(sample)


def arrays(n, **fields):
    made = SamplingArrays.empty(n)
    made.temperature[:] = 1.0
    for name, value in fields.items():
        getattr(made, name)[:] = value
    return made


def many(n, **fields):
    keys = np.stack([np.zeros(n, np.uint32), np.arange(n, dtype=np.uint32)], axis=1)
    logits = jnp.tile(LOGITS, (n, 1))
    ids, logprobs = jit_sample(logits, arrays(n, keys=keys, **fields), np.zeros(n, np.int32))
    return np.asarray(ids), np.asarray(logprobs)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
        ({"top_p": 0.8}, [0.625, 0.375, 0.0, 0.0]),
        ({"top_p": 0.01}, [1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 2}, [0.625, 0.375, 0.0, 0.0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 3, "top_p": 0.6}, np.array([0.5, 0.3, 0.0, 0.0]) / 0.8),
        ({"stop_ids": np.array([0, 3] + [-1] * 6), "stop_from": 1}, [0.0, 2 / 3, 1 / 3, 0.0]),
        ({"stop_ids": np.array([0, 3] + [-1] * 6), "stop_from": 0}, [0.5, 0.3, 0.15, 0.05]),
    ],
)
def test_samples_follow_the_distribution(fields, expected):
    ids, logprobs = many(4000, **fields)
    shares = np.bincount(ids, minlength=4) / len(ids)
    np.testing.assert_allclose(shares, expected, atol=0.03)
    np.testing.assert_allclose(np.exp(logprobs), np.asarray(expected)[ids], rtol=1e-4)


def test_temperature_zero_is_greedy():
    ids, logprobs = many(3, temperature=0.0, top_p=0.5)
    assert ids.tolist() == [0, 0, 0]
    np.testing.assert_allclose(np.exp(logprobs), 0.5, rtol=1e-6)


def test_a_sample_depends_on_its_own_key_and_position_only():
    def one(order, position=5):
        n = len(order)
        keys = np.array([[1, k] for k in order], np.uint32)
        ids, _ = jit_sample(
            jnp.zeros((n, 1000)), arrays(n, keys=keys), np.full(n, position, np.int32)
        )
        return dict(zip(order, ids.tolist(), strict=True))

    assert one([1, 2, 3, 4]) == one([4, 3, 2, 1])
    assert one([1, 2, 3, 4]) != one([1, 2, 3, 4], position=6)


def test_truncation_in_some_rows_changes_no_bit_of_the_others():
    n, size = 32, 8192
    logits = 4 * jax.random.normal(jax.random.key(0), (n, size))
    keys = np.stack([np.zeros(n, np.uint32), np.arange(n, dtype=np.uint32)], axis=1)
    some = np.arange(n) % 4
    temperature = np.where(some == 1, 0.0, 1.0)
    positions = np.zeros(n, np.int32)
    alone = jit_sample(logits, arrays(n, keys=keys, temperature=temperature), positions)
    truncation = {"top_p": np.where(some == 3, 0.9, 1.0), "top_k": np.where(some == 2, 50, 0)}
    mixed = jit_sample(
        logits, arrays(n, keys=keys, temperature=temperature, **truncation), positions
    )
    for one, other in zip(alone, mixed, strict=True):
        assert (np.asarray(one) == np.asarray(other))[some < 2].all()
        assert (np.asarray(one) != np.asarray(other))[some >= 2].any()


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -1},
        {"temperature": 1e-7},
        {"temperature": 1e39},
        {"temperature": float("nan")},
        {"top_k": 2**31},
        {"stop_ids": (-1,)},
        {"top_p": 0},
        {"top_k": -1},
        {"max_new_tokens": 0},
        {"min_new_tokens": 99},
    ],
)
def test_invalid_parameters_are_refused(fields):
    with pytest.raises(ConfigError, match="expected"):
        SamplingParams(**fields)
