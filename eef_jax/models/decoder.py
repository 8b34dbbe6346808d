"""The decoder all families share: an embedding, blocks of attention and feed-forward, scores.

Two ways through it: `__call__` for packed rows in full (training, teacher forcing) and `extend`
for new tokens on top of a key/value cache (sampling). Knows token ids, no files or text, and no
family's name: what families do differently are fields of `ModelConfig`.

Legend: b batch, t tokens, d model, v vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from eef_jax.models import remat as remat_lib
from eef_jax.models.block import Block
from eef_jax.models.cache import Cache, CacheView
from eef_jax.models.config import ModelConfig
from eef_jax.models.norm import make_norm
from eef_jax.models.rope import RotaryEmbedding, materialize, rotary_embedding
from eef_jax.sharding import all_gather_fsdp, constrain


class Decoder(nnx.Module):
    """A decoder-only transformer.

    All parameters are 0 (norms 1) until they are filled (see `hf`).

    Args:
        config: its shape.
        dtype: type the layers compute in.
        param_dtype: type the parameters are stored in.
        attention: name in the attention registry (`eef_jax.kernels`).
        remat: what is kept for the way back, a name in `remat.POLICIES`.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        attention: str,
        remat: str = "none",
    ) -> None:
        shape = (config.vocab_size, config.d_model)
        self.embed = nnx.Param(jnp.zeros(shape, param_dtype), axes=("vocab", "embed"))
        self.layers = nnx.List(
            Block(
                config,
                index,
                param_dtype=param_dtype,
                attention=attention,
                remat_ffn=remat == "none",
            )
            for index in range(config.n_layers)
        )
        self.norm = make_norm(config, config.d_model, param_dtype=param_dtype)
        self.head = (
            None
            if config.tie_embeddings
            else nnx.Param(jnp.zeros(shape[::-1], param_dtype), axes=("embed", "vocab"))
        )
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.remat = remat
        self.scanned = False  # whether the layers are stacks; see `layout.stack`

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
        x = self.embed_tokens(tokens)
        turns = self.rotary_embeddings(positions)

        def layer(block: Block, kind: int, index: jax.Array | int, x: jax.Array) -> jax.Array:
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
            x = block(x, turns[kind], segment_ids, key)
            return constrain(x, ("batch", "sequence", None))

        x = remat_lib.run_layers(self.layers, layer, x, scanned=self.scanned, remat=self.remat)
        return self.norm(x)

    def extend(self, tokens: jax.Array, view: CacheView, cache: Cache) -> tuple[jax.Array, Cache]:
        """Run new tokens on top of a cache.

        Args:
            tokens: i32[t] ids.
            view: where they go and what they see; what it calls padding is not written, and its
                output means nothing.
            cache: from `cache.init_cache`; donate it to the surrounding jit.

        Returns:
            The normed output [t, d], and the cache with the new tokens in it.
        """
        x = self.embed_tokens(tokens[None])
        turns = [materialize(turn) for turn in self.rotary_embeddings(view.positions[None])]
        new = []
        for layer, turn, old in zip(self.layers, turns, cache, strict=True):
            x, layer_cache = layer.extend(x, turn, view, old)
            new.append(layer_cache)
        return self.norm(x)[0], tuple(new)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Map [..., d] to float32 scores of the next token [..., v]."""
        return self.logits_fn(hidden.dtype)(hidden)

    def logits_fn(self, dtype: DTypeLike) -> Callable[[jax.Array], jax.Array]:
        """`logits` for many calls: its weight is gathered once, in the type of what it is given.

        Inside a loop over chunks of tokens it would travel once a chunk.
        """
        if self.head is None:
            weight, axes, contract = self.embed[...], ("vocab", "embed"), 1
        else:
            weight, axes, contract = self.head[...], ("embed", "vocab"), 0
        weight = all_gather_fsdp(weight.astype(dtype), axes)

        def scores_of(hidden: jax.Array) -> jax.Array:
            scores = jax.lax.dot_general(
                hidden,
                weight,
                (((hidden.ndim - 1,), (contract,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
            cap = self.config.logit_softcap
            return scores if cap is None else cap * jnp.tanh(scores / cap)

        return scores_of

    def embed_tokens(self, tokens: jax.Array) -> jax.Array:
        """What the first layer is given for ids i32[b, t]: [b, t, d]."""
        x = jnp.take(self.embed[...], tokens, axis=0, mode="clip").astype(self.dtype)
        # Devices of fsdp look all their rows up in their part of the width, then rows change
        # places: what travels is as large as the activations, not as the table.
        x = constrain(x, ("replica", "sequence", "embed"))
        if self.config.embedding_scale != 1.0:
            x = x * jnp.asarray(self.config.embedding_scale, self.dtype)
        return constrain(x, ("batch", "sequence", None))

    def rotary_embeddings(self, positions: jax.Array) -> list[RotaryEmbedding]:
        """Each layer's rotary angles at positions i32[b, t]."""
        config = self.config
        far = rotary_embedding(
            positions,
            head_dim=config.head_dim,
            theta=config.rope_theta,
            scaling=config.rope_scaling,
        )
        if config.local_rope_theta is None:
            return [far] * config.n_layers
        near = rotary_embedding(
            positions, head_dim=config.head_dim, theta=config.local_rope_theta, scaling=None
        )
        return [far if config.window(i) is None else near for i in range(config.n_layers)]
