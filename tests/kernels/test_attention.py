"""Every implementation in the registry against attention written out in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax import kernels
from eef_jax.errors import ConfigError

LENGTH = 150  # more than one query block, the last one ragged


def inputs(n: int = 4, kv_heads: int = 2):
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (2, n, LENGTH, 8))
    k, v = (jax.random.normal(key, (2, kv_heads, LENGTH, 8)) for key in keys[1:])
    segments = jnp.array([[1] * LENGTH, [1] * 40 + [2] * 100 + [0] * 10])
    return q, k, v, segments


def written_out(q, k, v, segments):
    k, v = (jnp.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    scores = jnp.einsum("bnth,bnsh->bnts", q, k) / q.shape[-1] ** 0.5
    seen = (segments[:, :, None] == segments[:, None]) & jnp.tri(q.shape[2], dtype=bool)
    scores = jnp.where(seen[:, None], scores, -jnp.inf)
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(scores, axis=-1), v)


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("name", sorted(kernels.IMPLEMENTATIONS))
def test_outputs_and_gradients(name, kv_heads):
    *qkv, segments = inputs(kv_heads=kv_heads)
    weights = jax.random.normal(jax.random.key(1), qkv[0].shape)

    def total(attend):
        loss = lambda q, k, v: (weights * attend(q, k, v)).sum()
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))

    got = total(lambda *x: kernels.attention(*x, segments, implementation=name))(*qkv)
    expected = total(lambda *x: written_out(*x, segments))(*qkv)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)


def test_large_scores_neither_overflow_nor_vanish():
    q, k, v, segments = inputs()
    attend = jax.jit(kernels.attention, static_argnames="implementation")
    out = attend(q * 1e3, k, v, segments, implementation="xla")
    np.testing.assert_allclose(out, jax.jit(written_out)(q * 1e3, k, v, segments), atol=1e-3)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="known: xla"):
        kernels.attention(*inputs(), implementation="splash!")
