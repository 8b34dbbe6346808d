"""The decoder all families share: pre-norm blocks of rotary attention and gated feed-forward.

Two ways through it: `__call__` for packed rows in full (training, teacher forcing) and `extend`
for new tokens on top of a key/value cache (sampling). Knows token ids, no files or text.

Legend: b batch, t tokens, c new tokens, s cache slots, d model, n heads, k kv heads, h head dim,
f ffn, v vocabulary.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from eef_jax import kernels
from eef_jax.models.base import TARGETS, LoraConfig, ModelConfig
from eef_jax.models.cache import Cache, Layer, Spot
from eef_jax.models.lora import Linear
from eef_jax.sharding import constrain


class Norm(nnx.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, width: int, *, eps: float, param_dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones(width, param_dtype), axes=("norm",))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide * scale).astype(x.dtype) * self.weight[...].astype(x.dtype)


class Block(nnx.Module):
    """One layer: attention and feed-forward, each on a normed copy of the residual stream."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        lora: LoraConfig | None,
        param_dtype: DTypeLike,
        attention: str,
    ) -> None:
        d, heads = config.d_model, config.n_heads * config.head_dim
        kv_heads = config.n_kv_heads * config.head_dim

        def linear(name: str, d_in: int, d_out: int, axes: tuple[str, str]) -> Linear:
            return Linear((d_in, d_out), axes, name=name, lora=lora, param_dtype=param_dtype)

        self.q_proj = linear("q_proj", d, heads, ("embed", "heads"))
        self.k_proj = linear("k_proj", d, kv_heads, ("embed", "kv_heads"))
        self.v_proj = linear("v_proj", d, kv_heads, ("embed", "kv_heads"))
        self.o_proj = linear("o_proj", heads, d, ("heads", "embed"))
        self.gate_proj = linear("gate_proj", d, config.d_ff, ("embed", "mlp"))
        self.up_proj = linear("up_proj", d, config.d_ff, ("embed", "mlp"))
        self.down_proj = linear("down_proj", config.d_ff, d, ("mlp", "embed"))
        self.attention_norm = Norm(d, eps=config.rms_eps, param_dtype=param_dtype)
        self.mlp_norm = Norm(d, eps=config.rms_eps, param_dtype=param_dtype)
        self.head_dim = config.head_dim
        self.attention = attention

    def __call__(
        self,
        x: jax.Array,
        rotation: tuple[jax.Array, jax.Array],
        segment_ids: jax.Array,
        dropout_key: jax.Array | None,
    ) -> jax.Array:
        """Map the residual stream [b, t, d] to the next layer's."""
        keys = _split(dropout_key)
        q, k, v = self._qkv(self.attention_norm(x), rotation, keys)
        mixed = kernels.attention(
            q, k.swapaxes(1, 2), v.swapaxes(1, 2), segment_ids, implementation=self.attention
        )
        x = x + self._out(mixed, keys)
        return x + self._mlp(self.mlp_norm(x), keys)

    def extend(
        self, x: jax.Array, rotation: tuple[jax.Array, jax.Array], spot: Spot, cache: Layer
    ) -> tuple[jax.Array, Layer]:
        """Map [b, c, d] likewise, writing the new keys and values into this layer's cache."""
        keys = _split(None)
        q, k, v = self._qkv(self.attention_norm(x), rotation, keys)
        cache = spot.write(cache[0], k), spot.write(cache[1], v)
        seen_k, seen_v = spot.read(cache[0]), spot.read(cache[1])
        mixed = kernels.cached_attention(q, seen_k, seen_v, spot.positions)
        x = x + self._out(mixed, keys)
        return x + self._mlp(self.mlp_norm(x), keys), cache

    def projections(self) -> list[Linear]:
        """The linear layers, in the order of `TARGETS`."""
        return [getattr(self, name) for name in TARGETS]

    def _qkv(
        self,
        x: jax.Array,
        rotation: tuple[jax.Array, jax.Array],
        keys: dict[str, jax.Array | None],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Project and rotate: q [b, n, t, h], k and v [b, t, k, h]."""

        def heads(name: str) -> jax.Array:
            y = getattr(self, name)(x, dropout_key=keys[name])
            return y.reshape(*y.shape[:2], -1, self.head_dim)

        q = rotate(heads("q_proj"), rotation).swapaxes(1, 2)
        return q, rotate(heads("k_proj"), rotation), heads("v_proj")

    def _out(self, mixed: jax.Array, keys: dict[str, jax.Array | None]) -> jax.Array:
        b, _, t, _ = mixed.shape
        return self.o_proj(mixed.swapaxes(1, 2).reshape(b, t, -1), dropout_key=keys["o_proj"])

    def _mlp(self, x: jax.Array, keys: dict[str, jax.Array | None]) -> jax.Array:
        gate = self.gate_proj(x, dropout_key=keys["gate_proj"])
        up = self.up_proj(x, dropout_key=keys["up_proj"])
        return self.down_proj(jax.nn.silu(gate) * up, dropout_key=keys["down_proj"])


class Decoder(nnx.Module):
    """A decoder-only transformer.

    All parameters are 0 (norms 1) until they are filled (see `hf`).

    Args:
        config: its shape.
        lora: the adapter to add; None for none.
        dtype: type the layers compute in.
        param_dtype: type the parameters are stored in (an adapter's are float32).
        attention: name in the attention registry (`eef_jax.kernels`).
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        lora: LoraConfig | None,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        attention: str,
    ) -> None:
        shape = (config.vocab_size, config.d_model)
        self.embed = nnx.Param(jnp.zeros(shape, param_dtype), axes=("vocab", "embed"))
        self.layers = nnx.List(
            Block(config, lora=lora, param_dtype=param_dtype, attention=attention)
            for _ in range(config.n_layers)
        )
        self.norm = Norm(config.d_model, eps=config.rms_eps, param_dtype=param_dtype)
        self.head = (
            None
            if config.tie_embeddings
            else nnx.Param(jnp.zeros(shape[::-1], param_dtype), axes=("embed", "vocab"))
        )
        self.config = config
        self.dtype = jnp.dtype(dtype)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Run packed rows in full.

        Args:
            tokens: i32[b, t] ids.
            positions: i32[b, t] position of each token in its own segment.
            segment_ids: i32[b, t]; a token sees the earlier ones of its own segment; 0 is padding.
            dropout_key: drops inputs of the adapter; None drops nothing.

        Returns:
            The last layer's normed output [b, t, d], ready for `logits`.
        """
        x = self._embedded(tokens)
        rotation = rotary(self.config, positions)
        for index, layer in enumerate(self.layers):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
            x = layer(x, rotation, segment_ids, key)
            x = constrain(x, ("batch", "sequence", None))
        return self.norm(x)

    def extend(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        rows: jax.Array | None,
        cache: Cache,
        *,
        length: int,
    ) -> tuple[jax.Array, Cache]:
        """Run new tokens on top of a cache.

        Args:
            tokens: i32[b, c] ids.
            positions: i32[b, c] position of each in its slot; below 0 for padding, which is not
                written and whose output means nothing.
            rows: i32[b] slot of each batch row, all different; None for all slots in order, which
                reads the cache in place.
            cache: from `cache.init_cache`; donate it to the surrounding jit.
            length: number of cache positions that are looked at (static); every position is below.

        Returns:
            The normed output [b, c, d], and the cache with the new tokens in it.
        """
        x = self._embedded(tokens)
        rotation = rotary(self.config, positions)
        spot = Spot(rows=rows, positions=positions, length=length)
        new = []
        for layer, old in zip(self.layers, cache, strict=True):
            x, layer_cache = layer.extend(x, rotation, spot, old)
            new.append(layer_cache)
        return self.norm(x), tuple(new)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Map [..., d] to float32 scores of the next token [..., v]."""
        if self.head is None:
            weight, contract = self.embed[...], 1
        else:
            weight, contract = self.head[...], 0
        return jax.lax.dot_general(
            hidden,
            weight.astype(hidden.dtype),
            (((hidden.ndim - 1,), (contract,)), ((), ())),
            preferred_element_type=jnp.float32,
        )

    def _embedded(self, tokens: jax.Array) -> jax.Array:
        x = jnp.take(self.embed[...], tokens, axis=0, mode="clip").astype(self.dtype)
        return constrain(x, ("batch", "sequence", None))


def rotary(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of each position's rotary angles, float32[b, t, h / 2]."""
    half = config.head_dim // 2
    frequency = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        turns = scaling.original_max_positions * frequency / (2 * math.pi)
        smooth = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        frequency = frequency * (smooth + (1.0 - smooth) / scaling.factor)
    angle = positions[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn the pairs (i, i + h / 2) of [b, t, n, h] by the angles of their positions."""
    cos, sin = (part[:, :, None, :].astype(x.dtype) for part in rotation)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _split(dropout_key: jax.Array | None) -> dict[str, jax.Array | None]:
    """A key for each projection, or none for any."""
    if dropout_key is None:
        return dict.fromkeys(TARGETS)
    return dict(zip(TARGETS, jax.random.split(dropout_key, len(TARGETS)), strict=True))
