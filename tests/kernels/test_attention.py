"""Every implementation in the registry, and attention to a cache, against attention in full."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eef_jax import kernels
from eef_jax.errors import ConfigError
from eef_jax.kernels import AttentionSpec, cudnn, flash, splash, xla
from eef_jax.sharding import make_mesh

LENGTH = 150  # several blocks, the last one ragged
PLAIN = AttentionSpec(scale=8**-0.5)
KINDS = {
    "plain": PLAIN,
    "window": AttentionSpec(scale=0.3, window=5),
    "wide window": AttentionSpec(scale=0.3, window=140),
    "softcap": AttentionSpec(scale=1.0, softcap=2.0),
    "window and softcap": AttentionSpec(scale=1.0, window=33, softcap=2.0),
}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(xla, "BLOCK", 64)


class Array:
    """A kernel's operand in a compiled program."""

    def __init__(self, dtype: str, *dims: int):
        self.dtype, self.dims = dtype, dims


def inputs(n: int = 4, kv_heads: int = 2):
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (2, n, LENGTH, 8))
    k, v = (jax.random.normal(key, (2, kv_heads, LENGTH, 8)) for key in keys[1:])
    segments = jnp.array([[1] * LENGTH, [1] * 40 + [2] * 100 + [0] * 10])
    return q, k, v, segments


def written_out(q, k, v, segments, spec=PLAIN):
    k, v = (jnp.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    scored = jnp.einsum("bnth,bnsh->bnts", q, k) * spec.scale
    if spec.softcap is not None:
        scored = spec.softcap * jnp.tanh(scored / spec.softcap)
    seen = (segments[:, :, None] == segments[:, None]) & jnp.tri(q.shape[2], dtype=bool)[None]
    if spec.window is not None:
        seen &= ~jnp.tri(q.shape[2], k=-spec.window, dtype=bool)[None]
    scored = jnp.where(seen[:, None], scored, -jnp.inf)
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(scored, axis=-1), v)


def run(name: str):
    """An implementation as a CPU runs it: splash's steps interpreted, cuDNN's call by XLA."""
    if name == "cudnn":
        return functools.partial(cudnn.attention, implementation="xla")
    return functools.partial(kernels.attention, implementation=name)


def compiled(function, spec_at: int = 4):
    """The function as one program: operation by operation it takes several times as long."""
    return jax.jit(function, static_argnums=spec_at)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(kernels.IMPLEMENTATIONS))
def test_outputs_and_gradients(name, kind):
    if name == "cudnn" and KINDS[kind].softcap is not None:
        with pytest.raises(ConfigError, match="has no softcap"):
            kernels.attention(*inputs(), KINDS[kind], implementation=name)
        return
    *qkv, segments = inputs(kv_heads=4 if kind == "plain" else 2)
    weights = jax.random.normal(jax.random.key(1), qkv[0].shape)

    def total(attend):
        loss = lambda q, k, v: (weights * attend(q, k, v, segments, KINDS[kind])).sum()
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*qkv)

    got = total(run(name))
    expected = total(written_out)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)


def pages(k, v, size=16, *, keys_transposed=False):
    """Keys and values [b, k, t, h] in pages that lie in no order, and each row's table."""
    (b, heads, t, h), width = k.shape, -(-LENGTH // size)
    table = np.random.default_rng(0).permutation(b * width).reshape(b, width)
    wide = ((0, 0), (0, 0), (0, width * size - t), (0, 0))
    k, v = (jnp.pad(x, wide).reshape(b, heads, width, size, h).swapaxes(1, 2) for x in (k, v))
    flat = lambda x: jnp.zeros((b * width, *x.shape[2:])).at[table].set(x)
    return flat(k.swapaxes(3, 4) if keys_transposed else k), flat(v), jnp.asarray(table)


@pytest.fixture(params=[*sorted(kernels.PAGED_IMPLEMENTATIONS), "flash, in blocks"])
def to_pages(request, monkeypatch):
    """Each kind of attention to a paged cache; `flash` also block by block and tile by tile."""
    if request.param != "flash, in blocks":
        return kernels.paged_attention(request.param)
    monkeypatch.setattr(flash, "pages_per_block", lambda page: 3)  # four blocks of ten pages
    monkeypatch.setattr(flash, "TILE", 4)
    return kernels.paged_attention("flash")


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_new_tokens_see_of_their_pages_what_they_see_in_full(to_pages, kind):
    q, k, v, _ = inputs()
    expected = compiled(written_out)(q, k, v, jnp.ones((2, LENGTH)), KINDS[kind])
    # Another number of tokens is new in each row; -1 is padding.
    positions = jnp.array([[147, 148, 149], [60, 61, -1]])
    new = jnp.take_along_axis(q, positions[:, None, :, None] % LENGTH, axis=2)
    stored = pages(k, v, keys_transposed=to_pages.keys_transposed)
    got = compiled(to_pages.prefill, 5)(new, *stored, positions, KINDS[kind])
    np.testing.assert_allclose(got[0], expected[0, :, 147:], atol=1e-5)
    np.testing.assert_allclose(got[1, :, :2], expected[1, :, 60:62], atol=1e-5)
    assert np.all(np.isfinite(got))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_token_sees_of_its_pages_what_it_sees_in_full(to_pages, kind):
    q, k, v, _ = inputs()
    expected = compiled(written_out)(q, k, v, jnp.ones((2, LENGTH)), KINDS[kind])
    attend = compiled(to_pages.decode, 5)
    k, v, table = pages(k, v, keys_transposed=to_pages.keys_transposed)
    for positions in ([149, 60], [-1, 0]):
        # Pages behind the token are not there yet.
        there = jnp.arange(table.shape[1]) * 16 <= jnp.array(positions)[:, None]
        new = q[jnp.arange(2), :, jnp.array(positions)]
        got = attend(new, k, v, jnp.where(there, table, len(k)), jnp.array(positions), KINDS[kind])
        assert np.all(np.isfinite(got))
        for row, position in enumerate(positions):
            if position >= 0:
                np.testing.assert_allclose(got[row], expected[row, :, position], atol=1e-5)


@pytest.mark.parametrize("heads", [2, 4])
def test_the_kernel_for_paged_caches_runs_where_the_heads_lie(heads):
    q, k, v, _ = inputs(n=8, kv_heads=heads)
    k, v, table = pages(k, v)
    last, positions = q[:, :, -1], jnp.array([149, 70])
    gathered = compiled(kernels.paged_attention("gathered").decode, 5)
    expected = gathered(last, k, v, table, positions, PLAIN)
    # Two heads do not spread over four devices: each then has both.
    with jax.set_mesh(make_mesh({"tensor": 4}, jax.devices()[:4])):
        attend = compiled(kernels.paged_attention("flash").decode, 5)
        got = attend(last, k, v, table, positions, PLAIN)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_blocks_of_other_segments_are_not_looked_at():
    q, k, v, _ = inputs()
    segments = jnp.array([[1] * 64 + [2] * 86] * 2)
    k, v = (x.at[:, :, :64].set(jnp.nan) for x in (k, v))
    own = jax.jit(lambda q, k, v: xla.attention(q, k, v, segments, PLAIN)[:, :, 64:].sum())
    grads = jax.grad(own, (0, 1, 2))(q, k, v)
    assert np.isfinite(own(q, k, v))
    assert all(np.all(np.isfinite(x[:, :, 64:])) for x in grads)


def test_large_scores_neither_overflow_nor_vanish():
    q, k, v, segments = inputs()
    attend = jax.jit(kernels.attention, static_argnums=4, static_argnames="implementation")
    out = attend(q * 1e3, k, v, segments, PLAIN, implementation="xla")
    np.testing.assert_allclose(out, jax.jit(written_out)(q * 1e3, k, v, segments), atol=1e-3)


@pytest.mark.parametrize("name", sorted(kernels.IMPLEMENTATIONS))
def test_bfloat16_scores_are_summed_in_float32(name):
    *qkv, segments = inputs()
    half = [x.astype(jnp.bfloat16) for x in qkv]
    got = compiled(run(name))(*half, segments, PLAIN)
    assert got.dtype == jnp.bfloat16
    # What is left is the rounding of inputs, weights and outputs: 8 bits each.
    expected = compiled(written_out)(*(x.astype(jnp.float32) for x in half), segments, PLAIN)
    np.testing.assert_allclose(got.astype(jnp.float32), expected, atol=0.03)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="known: cudnn, splash, xla"):
        kernels.attention(*inputs(), PLAIN, implementation="splash!")


@pytest.mark.parametrize("name", sorted(kernels.IMPLEMENTATIONS))
@pytest.mark.parametrize("sizes", [{"data": 2, "tensor": 2, "context": 2}, {"context": 4}])
def test_parts_of_a_mesh_give_the_whole(name, sizes):
    *qkv, segments = inputs()
    q, k, v = (jnp.pad(x, [(0, 0), (0, 0), (0, 10), (0, 0)]) for x in qkv)  # 160 divides by 4
    segments = jnp.pad(segments, [(0, 0), (0, 10)])
    expected = compiled(run("xla"))(q, k, v, segments, KINDS["window"])
    count = 8 if "data" in sizes else 4
    with jax.set_mesh(make_mesh(sizes, jax.devices()[:count])):
        got = compiled(run(name))(q, k, v, segments, KINDS["window"])
    np.testing.assert_allclose(got[:, :, :150], expected[:, :, :150], atol=1e-5)


def test_a_mesh_that_does_not_divide_the_heads_is_refused():
    *qkv, segments = inputs(n=3, kv_heads=3)
    mesh = make_mesh({"tensor": 2}, jax.devices()[:2])
    with jax.set_mesh(mesh), pytest.raises(ConfigError, match="tensor of 2 does not divide 3"):
        kernels.attention(*qkv, segments, PLAIN, implementation="splash")


def test_auto_is_what_the_devices_have():
    class Unbounded:
        attention_softcap = None

    assert kernels.resolve_attention("auto", None, "float32", Unbounded()) == "xla"
    assert kernels.resolve_attention("splash", None, "float32", Unbounded()) == "splash"
    with pytest.raises(ConfigError, match="did you mean splash"):
        kernels.resolve_attention("splsh", None, "float32", Unbounded())


def test_cudnn_refuses_wide_types():
    with pytest.raises(ConfigError, match="not float32"):
        kernels.attention(*inputs(), PLAIN, implementation="cudnn")


def test_the_kernel_s_work_is_two_products_forth_and_five_back():
    operands = [Array("s8", 1, 2, 2), Array("bf16", 8, 4, 2048, 128), Array("bf16", 8, 2048, 128)]
    square = 2.0 * 32 * 2048 * 2048 * 128
    assert splash.flops("splash_mqa_fwd_segmented", operands) == 2 * square * 3 / 4
    assert splash.flops("splash_mqa_dkv_segmented", operands) == 5 * square * 3 / 4
    assert splash.flops("ragged", operands) == 0.0
    one_kv_head = [Array("s8", 1, 2, 2), Array("bf16", 4, 2048, 128), Array("bf16", 2048, 128)]
    assert splash.flops("splash_mqa_fwd_segmented", one_kv_head) == 2 * square / 8 * 3 / 4


def test_the_paged_kernel_s_work_is_two_products_with_all_that_a_row_may_fill():
    keys = values = Array("bf16", 256, 2, 128, 64)
    table, positions = Array("s32", 32, 8), Array("s32", 32)
    queries = Array("bf16", 32, 2, 4, 64)
    operands = [table, positions, positions, queries, keys, keys, values, values]
    assert flash.flops("paged_flash.3", operands) == 2 * 2 * (32 * 2 * 4 * 64) * 8 * 128
    assert flash.flops("ragged", operands) == 0.0
