"""One layer of the decoder: attention and a gated feed-forward, each on normed inputs.

What families do differently are fields of `ModelConfig`; no family is known by name. Knows no
token ids.

Legend: b batch, t tokens, d model, n heads, k kv heads, h head dim,
f ffn.
"""

from collections.abc import Mapping

import jax
from flax import nnx
from jax.typing import DTypeLike

from eef_jax import kernels
from eef_jax.models.cache import CacheView, LayerCache
from eef_jax.models.config import ACTIVATIONS, TARGETS, ModelConfig
from eef_jax.models.linear import Linear
from eef_jax.models.norm import make_norm
from eef_jax.models.rope import RotaryEmbedding, apply_rotary

# A dropout key for each projection; None drops nothing.
Keys = Mapping[str, jax.Array | None]
NO_DROPOUT: Keys = dict.fromkeys(TARGETS)


class Block(nnx.Module):
    """x += post_norm(attend(norm(x))); x += post_norm(feed_forward(norm(x))).

    Args:
        config: the decoder's shape.
        index: which of its layers this is.
        param_dtype: type of the parameters.
        attention: name in the attention registry.
        remat_ffn: whether the way back computes act(gate(x)) * up(x) again, and what the last
            projection makes ready (its weight's gathering, an adapter's thin product). It is
            little work, and keeping it is much memory; where all is computed again it is lost work.
    """

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        *,
        param_dtype: DTypeLike,
        attention: str,
        remat_ffn: bool,
    ) -> None:
        d, heads = config.d_model, config.n_heads * config.head_dim
        kv_heads = config.n_kv_heads * config.head_dim

        def linear(d_in: int, d_out: int, axes: tuple[str, str], *, bias: bool = False) -> Linear:
            return Linear((d_in, d_out), axes, param_dtype=param_dtype, bias=bias)

        bias = config.attention_bias
        self.q_proj = linear(d, heads, ("embed", "heads"), bias=bias)
        self.k_proj = linear(d, kv_heads, ("embed", "kv_heads"), bias=bias)
        self.v_proj = linear(d, kv_heads, ("embed", "kv_heads"), bias=bias)
        self.o_proj = linear(heads, d, ("heads", "embed"))
        self.gate_proj = linear(d, config.d_ff, ("embed", "mlp"))
        self.up_proj = linear(d, config.d_ff, ("embed", "mlp"))
        self.down_proj = linear(config.d_ff, d, ("mlp", "embed"))
        self.attention_norm = make_norm(config, d, param_dtype=param_dtype)
        self.mlp_norm = make_norm(config, d, param_dtype=param_dtype)
        post, each = config.post_norms, config.qk_norm
        self.attention_post_norm = make_norm(config, d, param_dtype=param_dtype) if post else None
        self.mlp_post_norm = make_norm(config, d, param_dtype=param_dtype) if post else None
        self.q_norm = make_norm(config, config.head_dim, param_dtype=param_dtype) if each else None
        self.k_norm = make_norm(config, config.head_dim, param_dtype=param_dtype) if each else None
        self.head_dim = config.head_dim
        self.activation, self.remat_ffn = config.activation, remat_ffn
        self.attention = attention
        self.attention_spec = kernels.AttentionSpec(
            scale=(config.query_pre_attn_scalar or config.head_dim) ** -0.5,
            window=config.window(index),
            softcap=config.attention_softcap,
        )

    def __call__(
        self,
        x: jax.Array,
        rotary: RotaryEmbedding,
        segment_ids: jax.Array,
        dropout_key: jax.Array | None,
    ) -> jax.Array:
        """Map the residual stream [b, t, d] to the next layer's."""
        keys = _split(dropout_key)
        mixed = self.attend(self.attention_norm(x), rotary, segment_ids, keys)
        return self._rest(x, mixed, keys)

    def extend(
        self, x: jax.Array, rotary: RotaryEmbedding, view: CacheView, cache: LayerCache
    ) -> tuple[jax.Array, LayerCache]:
        """Map new tokens [1, t, d] likewise, writing keys and values into this layer's cache."""
        q, k, v = self._qkv(self.attention_norm(x), rotary, NO_DROPOUT)
        cache = view.write(cache, k[0], v[0])
        heads = view.attend(q[0].swapaxes(0, 1), cache, self.attention_spec)
        return self._rest(x, self._out(heads.swapaxes(0, 1)[None], NO_DROPOUT), NO_DROPOUT), cache

    def attend(
        self, x: jax.Array, rotary: RotaryEmbedding, segment_ids: jax.Array, keys: Keys = NO_DROPOUT
    ) -> jax.Array:
        """Mix the tokens of normed rows [b, t, d] within their segments."""
        q, k, v = self._qkv(x, rotary, keys)
        heads = kernels.attention(
            q,
            k.swapaxes(1, 2),
            v.swapaxes(1, 2),
            segment_ids,
            self.attention_spec,
            implementation=self.attention,
        )
        return self._out(heads, keys)

    def feed_forward(self, x: jax.Array, keys: Keys = NO_DROPOUT) -> jax.Array:
        """down(act(gate(x)) * up(x)) of normed [b, t, d], through [b, t, f]."""

        def down(gate: jax.Array, up: jax.Array) -> jax.Array:
            gated = ACTIVATIONS[self.activation](gate) * up
            return self.down_proj(gated, dropout_key=keys["down_proj"])

        gate = self.gate_proj(x, dropout_key=keys["gate_proj"])
        up = self.up_proj(x, dropout_key=keys["up_proj"])
        return (jax.checkpoint(down) if self.remat_ffn else down)(gate, up)

    def projections(self) -> list[Linear]:
        """The linear layers, in the order of `TARGETS`."""
        return [getattr(self, name) for name in TARGETS]

    def _rest(self, x: jax.Array, mixed: jax.Array, keys: Keys) -> jax.Array:
        """All that follows attention, which is the same with a cache and without."""
        x = x + _if(self.attention_post_norm, mixed)
        return x + _if(self.mlp_post_norm, self.feed_forward(self.mlp_norm(x), keys))

    def _qkv(
        self, x: jax.Array, rotary: RotaryEmbedding, keys: Keys
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Project, norm and rotate: q [b, n, t, h], k and v [b, t, k, h]."""

        def heads(name: str) -> jax.Array:
            y = getattr(self, name)(x, dropout_key=keys[name])
            return y.reshape(*y.shape[:2], -1, self.head_dim)

        q = apply_rotary(_if(self.q_norm, heads("q_proj")), rotary).swapaxes(1, 2)
        return q, apply_rotary(_if(self.k_norm, heads("k_proj")), rotary), heads("v_proj")

    def _out(self, heads: jax.Array, keys: Keys) -> jax.Array:
        b, _, t, _ = heads.shape
        return self.o_proj(heads.swapaxes(1, 2).reshape(b, t, -1), dropout_key=keys["o_proj"])


def _if(optional: nnx.Module | None, x: jax.Array) -> jax.Array:
    return x if optional is None else optional(x)


def _split(dropout_key: jax.Array | None) -> Keys:
    """A key for each projection, or none for any."""
    if dropout_key is None:
        return NO_DROPOUT
    return dict(zip(TARGETS, jax.random.split(dropout_key, len(TARGETS)), strict=True))
