"""Attention in plain XLA operations: runs everywhere, and what others are checked against.

Flash attention (arXiv:2205.14135) written out: block by block with a running softmax, and a way
back that computes scores again, so that no [t, s] matrix is ever kept. Blocks of which nothing is
seen cost nothing: causality, a window and the rows' own segments leave them out, the last through
a loop whose length depends on the data. Products and softmax accumulate in float32 whatever type
the arrays have. Knows nothing of models.

Legend: b batch, t query tokens, s key tokens, n query heads, k kv heads, g = n / k, h head dim;
i and j number blocks of queries and of keys, x and y the tokens in one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from eef_jax.kernels import sharded
from eef_jax.kernels.spec import AttentionSpec

# Added to the score of a pair that must not see each other. Finite, so that a row that sees nothing
# (padding) gives some number instead of nan.
MASK_BIAS = -1e9
BLOCK = 256  # tokens; smaller blocks leave more out, larger ones multiply faster


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, spec: AttentionSpec
) -> jax.Array:
    """Causal attention within segments.

    Args:
        q: [b, n, t, h]; under a mesh each device computes its rows, heads and queries, and all of
            those that the mesh does not divide.
        k: [b, k, t, h].
        v: [b, k, t, h].
        segment_ids: i32[b, t]; equal ids stand side by side, so that places in the row are as far
            apart as positions are.
        spec: see `AttentionSpec`.

    Returns:
        [b, n, t, h].
    """
    local = functools.partial(_local, spec)
    return sharded.shard_attention(local, q * spec.scale, k, v, segment_ids, evenly=False)


def _local(
    spec: AttentionSpec,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    q_ids: jax.Array,
    kv_ids: jax.Array,
    part: jax.Array,
) -> jax.Array:
    """A device's part: its queries stand at `part` of as many equal parts as there are."""
    b, n, t, h = q.shape
    places = part[0] * t + jnp.arange(t)
    q = q.reshape(b, k.shape[1], -1, t, h)
    return _attend(spec, q, k, v, (q_ids, kv_ids, places)).reshape(b, n, t, h)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(spec: AttentionSpec, q: jax.Array, k: jax.Array, v: jax.Array, where: Any) -> jax.Array:
    """Attend with scaled q [b, k, g, t, h], k and v [b, k, s, h].

    `where` are the segments i32[b, t] and i32[b, s], and the queries' places among the keys i32[t].
    """
    return _fwd(spec, q, k, v, where)[0]


def _fwd(
    spec: AttentionSpec, q: jax.Array, k: jax.Array, v: jax.Array, where: Any
) -> tuple[Any, Any]:
    """The heads [b, k, g, t, h], and what the way back needs."""
    t = q.shape[3]
    pairs = _Pairs(spec, where)
    queries, keys = pairs.queries(q, 3), pairs.keys(k.swapaxes(2, 3), 3)
    values = pairs.keys(v, 2)

    def add(i: jax.Array, j: jax.Array, sums: Any) -> Any:
        peak, total, mixed = (_at(x, i) for x in sums)
        scored = pairs.scored(_at(queries, i), _at(keys, j), i, j)[1]
        new = jnp.maximum(peak, scored.max(axis=-1, keepdims=True))
        weights, fade = jnp.exp(scored - new), jnp.exp(peak - new)
        mixed = mixed * fade + _einsum("bkgxy,bkyh->bkgxh", weights.astype(v.dtype), _at(values, j))
        total = total * fade + weights.sum(axis=-1, keepdims=True)
        return [_put(x, y, i) for x, y in zip(sums, (new, total, mixed), strict=True)]

    zeros = jnp.zeros(queries.shape, jnp.float32)
    start = [jnp.full_like(zeros[..., :1], -jnp.inf), zeros[..., :1], zeros]
    peak, total, mixed = pairs.loop(add, start)
    out = _joined(mixed / total, 3, t).astype(q.dtype)
    return out, (q, k, v, where, out, peak + jnp.log(total))


def _bwd(spec: AttentionSpec, kept: Any, d_out: jax.Array) -> tuple[Any, ...]:
    """Gradients of q, k and v.

    Those of keys and values gather as [h, s], which multiplies weights as they lie: turning them
    would take as long as a product.
    """
    q, k, v, where, out, log_total = kept
    t, s = q.shape[3], k.shape[2]
    pairs = _Pairs(spec, where)
    dots = jnp.sum(d_out.astype(jnp.float32) * out, axis=-1, keepdims=True)
    queries, d_outs, dots = (pairs.queries(x, 3) for x in (q, d_out, dots))
    keys, turned_keys = pairs.keys(k, 2), pairs.keys(k.swapaxes(2, 3), 3)
    turned_values = pairs.keys(v.swapaxes(2, 3), 3)

    def add(i: jax.Array, j: jax.Array, sums: Any) -> Any:
        d_q, d_k, d_v = sums
        query, d_head = _at(queries, i), _at(d_outs, i)
        bare, scored = pairs.scored(query, _at(turned_keys, j), i, j)
        weights = jnp.exp(scored - _at(log_total, i))
        d_weights = _einsum("bkgxh,bkhy->bkgxy", d_head, _at(turned_values, j))
        d_scored = weights * (d_weights - _at(dots, i))
        if spec.softcap is not None:
            d_scored = d_scored * (1 - jnp.square(bare / spec.softcap))
        weights, d_scored = weights.astype(v.dtype), d_scored.astype(v.dtype)
        d_q = _put(d_q, _at(d_q, i) + _einsum("bkgxy,bkyh->bkgxh", d_scored, _at(keys, j)), i)
        d_k = _put(d_k, _at(d_k, j) + _einsum("bkgxh,bkgxy->bkhy", query, d_scored), j)
        return [d_q, d_k, _put(d_v, _at(d_v, j) + _einsum("bkgxh,bkgxy->bkhy", d_head, weights), j)]

    start = [jnp.zeros(x.shape, jnp.float32) for x in (queries, turned_keys, turned_values)]
    d_q, d_k, d_v = pairs.loop(add, start)
    keys_transposed = (_joined(x, 3, s).swapaxes(2, 3).astype(k.dtype) for x in (d_k, d_v))
    return _joined(d_q, 3, t).astype(q.dtype), *keys_transposed, None


_attend.defvjp(_fwd, _bwd)


class _Pairs:
    """The pairs (i, j) of blocks in which a query may see a key, query block by query block."""

    def __init__(self, spec: AttentionSpec, where: Any):
        q_ids, kv_ids, places = where
        t, s = q_ids.shape[1], kv_ids.shape[1]
        self._spec, self._rows, self._columns = spec, min(BLOCK, t), min(BLOCK, s)
        self._places = self.queries(places, 0)
        self._q_ids, self._kv_ids = self.queries(q_ids, 1, -1), self.keys(kv_ids, 1, -1)
        ends = [min(start + self._rows, t) - 1 for start in range(0, t, self._rows)]
        # Of queries split over devices the last part sees most.
        self._most = sum((s - t + end) // self._columns + 1 for end in ends)
        last = (places[0] + jnp.array(ends)) // self._columns
        first = self._first(kv_ids, places[:: self._rows]) // self._columns
        many = last - first + 1
        after = jnp.cumsum(many)
        self._start = self._most - after[-1]
        number = jnp.arange(self._most) - self._start
        self._i = jnp.sum(after <= number[:, None], axis=1)
        self._j = first[self._i] + number - (after - many)[self._i]

    def _first(self, kv_ids: jax.Array, places: jax.Array) -> jax.Array:
        """The first place that any row's query at some places sees."""
        new = jnp.diff(kv_ids, axis=1, prepend=kv_ids[:, :1] - 1) != 0
        starts = jax.lax.cummax(jnp.where(new, jnp.arange(new.shape[1]), 0), axis=1)
        first = starts.min(axis=0)[places]
        window = self._spec.window
        return first if window is None else jnp.maximum(first, places + 1 - window)

    def queries(self, x: jax.Array, axis: int, padding: int = 0) -> jax.Array:
        """Cut queries along an axis: [.., t, ..] -> [i, .., x, ..]."""
        return _cut(x, axis, self._rows, padding)

    def keys(self, x: jax.Array, axis: int, padding: int = 0) -> jax.Array:
        """Cut keys along an axis: [.., s, ..] -> [j, .., y, ..]."""
        return _cut(x, axis, self._columns, padding)

    def loop(self, add: Callable[[jax.Array, jax.Array, Any], Any], sums: Any) -> Any:
        """Add up over all pairs: add(i, j, sums) gives the next sums.

        The loop ends at a constant and begins where the data say, so that the program tells how
        long it can get.
        """

        def step(carry: Any) -> Any:
            n, sums = carry
            return n + 1, add(self._i[n], self._j[n], sums)

        return jax.lax.while_loop(lambda carry: carry[0] < self._most, step, (self._start, sums))[1]

    def scored(
        self, query: jax.Array, key: jax.Array, i: jax.Array, j: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Scores [b, k, g, x, y] of a pair, [b, k, g, x, h] and [b, k, h, y]: bare, and masked."""
        bare = softcap(_einsum("bkgxh,bkhy->bkgxy", query, key), self._spec)
        columns = j * self._columns + jnp.arange(self._columns)
        apart = _at(self._places, i)[:, None] - columns
        same = _at(self._q_ids, i)[:, :, None] == _at(self._kv_ids, j)[:, None]
        bias = jnp.where(same & visible(apart, self._spec), 0.0, MASK_BIAS)
        return bare, bare + bias[:, None, None]


def _cut(x: jax.Array, axis: int, size: int, padding: int) -> jax.Array:
    """Blocks of an axis in front: [.., t, ..] -> [t / size, .., size, ..], the last one padded."""
    wide = [(0, -x.shape[axis] % size if i == axis else 0) for i in range(x.ndim)]
    x = jnp.pad(x, wide, constant_values=padding)
    shape = (*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _joined(x: jax.Array, axis: int, length: int) -> jax.Array:
    """The blocks in their place again: [n, .., size, ..] -> [.., length, ..]."""
    x = jnp.moveaxis(x, 0, axis)
    whole = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(whole, 0, length, axis=axis)


def _at(x: jax.Array, i: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)


def _put(x: jax.Array, block: jax.Array, i: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x, block, i, axis=0)


def visible(apart: jax.Array, spec: AttentionSpec) -> jax.Array:
    """Whether a key so many tokens before its query is seen by it (causality and window)."""
    causal = apart >= 0
    return causal if spec.window is None else causal & (apart < spec.window)


def softcap(scored: jax.Array, spec: AttentionSpec) -> jax.Array:
    """Bound the scores, if the spec has a softcap."""
    cap = spec.softcap
    return scored if cap is None else cap * jnp.tanh(scored / cap)


def _einsum(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)
