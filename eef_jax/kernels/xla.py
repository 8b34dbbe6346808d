"""Attention in plain XLA operations: runs everywhere; the reference for the other kernels.

Flash attention (arXiv:2205.14135) written out: block by block with a running softmax, and a
backward pass that recomputes scores, so no [t, s] matrix is ever stored. Blocks that are fully
masked cost nothing: causality, a window and the rows' own segments skip them, the last through a
loop whose length depends on the data. Products and softmax accumulate in float32 for all dtypes.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, g = n / k, h head dim;
i and j number blocks of queries and of keys, x and y the tokens in one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from eef_jax.kernels import sharded
from eef_jax.kernels.spec import AttentionSpec

# Added to the score of a masked pair. Finite, so that a row that sees nothing (padding) gives some
# number instead of nan.
MASK_BIAS = -1e9
# Tokens. Smaller blocks skip more, larger ones multiply faster: at 128, matrix products on a CPU
# run at half their speed; at 384, the diagonal wastes what they gain.
BLOCK = 256

# Segment ids of the queries and of the keys, and the queries' positions among the keys.
_Where = tuple[Int[Array, "b t"], Int[Array, "b s"], Int[Array, " t"]]


def attention(
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k t h"],
    v: Float[Array, "b k t h"],
    segment_ids: Int[Array, "b t"],
    spec: AttentionSpec,
) -> Float[Array, "b n t h"]:
    """Causal attention within segments.

    Args:
        q: queries. Under a mesh, each device computes its part of the rows, heads and queries, and
            the whole of a dimension that the mesh does not divide.
        k: keys; n is a multiple of k.
        v: values.
        segment_ids: equal ids are contiguous, so that distances in the row equal distances in
            positions.
        spec: scale, window and softcap of the scores.

    Returns:
        The attended values of each query head.
    """
    local = functools.partial(_local, spec)
    return sharded.shard_attention(local, q * spec.scale, k, v, segment_ids, evenly=False)


def _local(
    spec: AttentionSpec,
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k s h"],
    v: Float[Array, "b k s h"],
    q_ids: Int[Array, "b t"],
    kv_ids: Int[Array, "b s"],
    part: Int[Array, "1"],
) -> Float[Array, "b n t h"]:
    """One device's part: its queries are number `part` of equal parts of the row."""
    b, n, t, h = q.shape
    positions = part[0] * t + jnp.arange(t)
    # The query heads of one kv head go into one product: products of 256 rows each run on one core.
    q = q.reshape(b, k.shape[1], -1, t, h)
    return _attend(spec, q, k, v, (q_ids, kv_ids, positions)).reshape(b, n, t, h)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    spec: AttentionSpec,
    q: Float[Array, "b k g t h"],
    k: Float[Array, "b k s h"],
    v: Float[Array, "b k s h"],
    where: _Where,
) -> Float[Array, "b k g t h"]:
    """Attend with queries that are already scaled."""
    return _fwd(spec, q, k, v, where)[0]


def _fwd(
    spec: AttentionSpec,
    q: Float[Array, "b k g t h"],
    k: Float[Array, "b k s h"],
    v: Float[Array, "b k s h"],
    where: _Where,
) -> tuple[Float[Array, "b k g t h"], tuple[Any, ...]]:
    """The attended values, and the residuals of the backward pass."""
    t = q.shape[3]
    pairs = _BlockPairs(spec, where)
    queries, keys = pairs.queries(q, 3), pairs.keys(k.swapaxes(2, 3), 3)
    values = pairs.keys(v, 2)

    def add(i: Int[Array, ""], j: Int[Array, ""], sums: Any) -> Any:
        peak, total, mixed = (_at(x, i) for x in sums)
        scores = pairs.scores(_at(queries, i), _at(keys, j), i, j)[1]
        new_peak = jnp.maximum(peak, scores.max(axis=-1, keepdims=True))
        weights, rescale = jnp.exp(scores - new_peak), jnp.exp(peak - new_peak)
        mixed = mixed * rescale + _einsum(
            "bkgxy,bkyh->bkgxh", weights.astype(v.dtype), _at(values, j)
        )
        total = total * rescale + weights.sum(axis=-1, keepdims=True)
        return [_put(x, y, i) for x, y in zip(sums, (new_peak, total, mixed), strict=True)]

    zeros = jnp.zeros(queries.shape, jnp.float32)
    start = [jnp.full_like(zeros[..., :1], -jnp.inf), zeros[..., :1], zeros]
    peak, total, mixed = pairs.loop(add, start)
    out = _unblock(mixed / total, 3, t).astype(q.dtype)
    # Scores and weights are recomputed in the backward pass: saving the weights cost a transposed
    # copy each and doubled the step's memory (SmolLM2-135M, 2,304 tokens: 9.6 GiB instead of 5).
    return out, (q, k, v, where, out, peak + jnp.log(total))


def _bwd(
    spec: AttentionSpec, residuals: tuple[Any, ...], d_out: Float[Array, "b k g t h"]
) -> tuple[Any, ...]:
    """Gradients of q, k and v."""
    q, k, v, where, out, log_total = residuals
    t, s = q.shape[3], k.shape[2]
    pairs = _BlockPairs(spec, where)
    dots = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1, keepdims=True)
    queries, d_outs, dots = (pairs.queries(x, 3) for x in (q, d_out, dots))
    keys, keys_transposed = pairs.keys(k, 2), pairs.keys(k.swapaxes(2, 3), 3)
    values_transposed = pairs.keys(v.swapaxes(2, 3), 3)

    def add(i: Int[Array, ""], j: Int[Array, ""], sums: Any) -> Any:
        d_q, d_k, d_v = sums
        query, d_heads = _at(queries, i), _at(d_outs, i)
        unmasked, scores = pairs.scores(query, _at(keys_transposed, j), i, j)
        weights = jnp.exp(scores - _at(log_total, i))
        d_weights = _einsum("bkgxh,bkhy->bkgxy", d_heads, _at(values_transposed, j))
        d_scores = weights * (d_weights - _at(dots, i))
        if spec.softcap is not None:
            d_scores = d_scores * (1 - jnp.square(unmasked / spec.softcap))
        weights, d_scores = weights.astype(v.dtype), d_scores.astype(v.dtype)
        d_q = _put(d_q, _at(d_q, i) + _einsum("bkgxy,bkyh->bkgxh", d_scores, _at(keys, j)), i)
        # Gradients of keys and values accumulate as [h, s], which uses the weights in the layout
        # that they have: transposing them would take as long as a product.
        d_k = _put(d_k, _at(d_k, j) + _einsum("bkgxh,bkgxy->bkhy", query, d_scores), j)
        d_v = _put(d_v, _at(d_v, j) + _einsum("bkgxh,bkgxy->bkhy", d_heads, weights), j)
        return [d_q, d_k, d_v]

    like = (queries, keys_transposed, values_transposed)
    d_q, d_k, d_v = pairs.loop(add, [jnp.zeros(x.shape, jnp.float32) for x in like])
    d_keys, d_values = (_unblock(x, 3, s).swapaxes(2, 3).astype(k.dtype) for x in (d_k, d_v))
    return _unblock(d_q, 3, t).astype(q.dtype), d_keys, d_values, None


_attend.defvjp(_fwd, _bwd)


class _BlockPairs:
    """The pairs (i, j) of blocks in which a query may see a key, query block by query block."""

    def __init__(self, spec: AttentionSpec, where: _Where):
        q_ids, kv_ids, positions = where
        t, s = q_ids.shape[1], kv_ids.shape[1]
        self._spec, self._rows, self._columns = spec, min(BLOCK, t), min(BLOCK, s)
        self._positions = self.queries(positions, 0)
        self._q_ids, self._kv_ids = self.queries(q_ids, 1, -1), self.keys(kv_ids, 1, -1)
        ends = [min(start + self._rows, t) - 1 for start in range(0, t, self._rows)]
        # Of queries that are split over devices, the last part sees most.
        self._max_pairs = sum((s - t + end) // self._columns + 1 for end in ends)
        last = (positions[0] + jnp.array(ends)) // self._columns
        first = self._first_visible(kv_ids, positions[:: self._rows]) // self._columns
        per_block = last - first + 1
        ends_at = jnp.cumsum(per_block)
        self._start = self._max_pairs - ends_at[-1]
        number = jnp.arange(self._max_pairs) - self._start
        self._i = jnp.sum(ends_at[None] <= number[:, None], axis=1)
        self._j = first[self._i] + number - (ends_at - per_block)[self._i]

    def _first_visible(
        self, kv_ids: Int[Array, "b s"], positions: Int[Array, " i"]
    ) -> Int[Array, " i"]:
        """The first key that the query at a position sees, in the row where that is earliest."""
        new = jnp.diff(kv_ids, axis=1, prepend=kv_ids[:, :1] - 1) != 0
        starts = jax.lax.cummax(jnp.where(new, jnp.arange(new.shape[1])[None], 0), axis=1)
        first = starts.min(axis=0)[positions]
        window = self._spec.window
        return first if window is None else jnp.maximum(first, positions + 1 - window)

    def queries(
        self, x: Shaped[Array, "..."], axis: int, padding: int = 0
    ) -> Shaped[Array, "i ..."]:
        """Cut queries into blocks along an axis: [.., t, ..] -> [i, .., x, ..]."""
        return _block(x, axis, self._rows, padding)

    def keys(self, x: Shaped[Array, "..."], axis: int, padding: int = 0) -> Shaped[Array, "j ..."]:
        """Cut keys into blocks along an axis: [.., s, ..] -> [j, .., y, ..]."""
        return _block(x, axis, self._columns, padding)

    def loop(self, add: Callable[[Int[Array, ""], Int[Array, ""], Any], Any], sums: Any) -> Any:
        """Accumulate over all pairs: add(i, j, sums) returns the next sums.

        One loop over the pairs that these rows need takes 130 to 160 ms for a layer of SmolLM2-135M
        with two trajectories of 2,304 tokens in all, where all causal pairs take 250 to 280.
        """

        # The loop ends at a constant and starts where the data say, so that the compiled program
        # tells the largest number of trips (`analysis.hlo` reads it).
        def step(carry: Any) -> Any:
            n, sums = carry
            return n + 1, add(self._i[n], self._j[n], sums)

        start = (self._start, sums)
        return jax.lax.while_loop(lambda carry: carry[0] < self._max_pairs, step, start)[1]

    def scores(
        self,
        query: Float[Array, "b k g x h"],
        key: Float[Array, "b k h y"],
        i: Int[Array, ""],
        j: Int[Array, ""],
    ) -> tuple[Float[Array, "b k g x y"], Float[Array, "b k g x y"]]:
        """Scores of a pair of blocks: without and with the mask."""
        unmasked = softcap(_einsum("bkgxh,bkhy->bkgxy", query, key), self._spec)
        columns = j * self._columns + jnp.arange(self._columns)
        distance = _at(self._positions, i)[:, None] - columns[None]
        same = _at(self._q_ids, i)[:, :, None] == _at(self._kv_ids, j)[:, None]
        bias = jnp.where(same & visible(distance, self._spec)[None], 0.0, MASK_BIAS)
        return unmasked, unmasked + bias[:, None, None]


def _block(x: Shaped[Array, "..."], axis: int, size: int, padding: int) -> Shaped[Array, "n ..."]:
    """Cut an axis into leading blocks: [.., t, ..] -> [t / size, .., size, ..], the last padded."""
    widths = [(0, -x.shape[axis] % size if i == axis else 0) for i in range(x.ndim)]
    x = jnp.pad(x, widths, constant_values=padding)
    shape = (*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _unblock(x: Shaped[Array, "n ..."], axis: int, length: int) -> Shaped[Array, "..."]:
    """Undo `_block`: [n, .., size, ..] -> [.., length, ..]."""
    x = jnp.moveaxis(x, 0, axis)
    whole = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(whole, 0, length, axis=axis)


def _at(x: Shaped[Array, "n ..."], i: Int[Array, ""]) -> Shaped[Array, "..."]:
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _put(
    x: Float[Array, "n ..."], block: Float[Array, "..."], i: Int[Array, ""]
) -> Float[Array, "n ..."]:
    return jax.lax.dynamic_update_index_in_dim(x, block, i, axis=0)


def visible(distance: Int[Array, "*x"], spec: AttentionSpec) -> Bool[Array, "*x"]:
    """Whether a query sees the key that is `distance` tokens before it (causality and window)."""
    causal = distance >= 0
    return causal if spec.window is None else causal & (distance < spec.window)


def softcap(scores: Float[Array, "*x"], spec: AttentionSpec) -> Float[Array, "*x"]:
    """Bound the scores, if the spec has a softcap."""
    cap = spec.softcap
    return scores if cap is None else cap * jnp.tanh(scores / cap)


def _einsum(equation: str, x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
