"""The decoder that all families share: an embedding, blocks of attention and feed-forward, logits.

`__call__` runs packed rows in full (training); `extend` runs new tokens on top of a key/value cache
(sampling). What families do differently is a field of `ModelConfig`.

Legend: b batch, t tokens, d model, v vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, Key

from eef_jax.models import remat as remat_lib
from eef_jax.models.block import Block
from eef_jax.models.cache import Cache, CacheView
from eef_jax.models.config import ModelConfig
from eef_jax.models.norm import make_norm
from eef_jax.models.rope import RotaryEmbedding, materialize, rotary_embedding
from eef_jax.sharding import all_gather_fsdp, constrain


class Decoder(nnx.Module):
    """A decoder-only transformer.

    All parameters are 0 (norms 1) until `build` fills them.

    Args:
        config: shape of the decoder.
        dtype: type that layers compute in.
        param_dtype: type that parameters are stored in.
        attention: name in `kernels.IMPLEMENTATIONS`.
        remat: what is saved for the backward pass, a name in `remat.POLICIES`.
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
        self.scanned = False  # whether `layers` holds stacks, see `stacking.stack_layers`

    def __call__(
        self,
        tokens: Int[Array, "b t"],
        positions: Int[Array, "b t"],
        segment_ids: Int[Array, "b t"],
        *,
        dropout_keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b t d"]:
        """Run packed rows in full.

        Args:
            tokens: token ids.
            positions: position of each token in its segment.
            segment_ids: a token sees earlier tokens of its segment; 0 is padding.
            dropout_keys: of each row, drop inputs of the adapters; None drops nothing.

        Returns:
            The normed output of the last layer, ready for `logits`.
        """
        x = self.embed_tokens(tokens)
        rotary = self.rotary_embeddings(positions)
        fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))

        def layer(
            block: Block, kind: int, index: Int[Array, ""] | int, x: Float[Array, "b t d"]
        ) -> Float[Array, "b t d"]:
            # Keys by the number of the layer: stacked layers drop what separate ones drop.
            keys = None if dropout_keys is None else fold(dropout_keys, index)
            x = block(x, rotary[kind], segment_ids, keys)
            return constrain(x, ("batch", "sequence", None))

        x = remat_lib.run_layers(self.layers, layer, x, scanned=self.scanned, remat=self.remat)
        return self.norm(x)

    def extend(
        self, tokens: Int[Array, " t"], view: CacheView, cache: Cache
    ) -> tuple[Float[Array, "t d"], Cache]:
        """Run new tokens on top of a cache.

        Args:
            tokens: token ids.
            view: where their keys and values are written and what they attend to; padding is not
                written, and its output is undefined.
            cache: from `cache.init_cache`; donate it to the surrounding jit.

        Returns:
            The normed output, and the cache with the new tokens in it.
        """
        x = self.embed_tokens(tokens[None])  # one row of tokens of many conversations
        rotary = [materialize(each) for each in self.rotary_embeddings(view.positions[None])]
        new_cache = []
        for layer, layer_rotary, layer_cache in zip(self.layers, rotary, cache, strict=True):
            x, layer_cache = layer.extend(x, layer_rotary, view, layer_cache)
            new_cache.append(layer_cache)
        return self.norm(x)[0], tuple(new_cache)

    def logits(self, hidden: Float[Array, "*x d"]) -> Float32[Array, "*x v"]:
        """Map the normed output to logits of the next token."""
        return self.logits_fn(hidden.dtype)(hidden)

    def logits_fn(
        self, dtype: DTypeLike
    ) -> Callable[[Float[Array, "*x d"]], Float32[Array, "*x v"]]:
        """`logits` as a function whose weight is cast and all-gathered once.

        For loops over chunks of tokens, which would otherwise gather the weight for every chunk.

        Args:
            dtype: type of the hidden states that the function will get.
        """
        if self.head is None:
            weight, axes, contract = self.embed[...], ("vocab", "embed"), 1
        else:
            weight, axes, contract = self.head[...], ("embed", "vocab"), 0
        weight = all_gather_fsdp(weight.astype(dtype), axes)

        def logits(hidden: Float[Array, "*x d"]) -> Float32[Array, "*x v"]:
            # Contracted as it is stored: a transposed copy of the table would be as large.
            scores = jax.lax.dot_general(
                hidden,
                weight,
                (((hidden.ndim - 1,), (contract,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
            cap = self.config.logit_softcap
            return scores if cap is None else cap * jnp.tanh(scores / cap)

        return logits

    def embed_tokens(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Input of the first layer."""
        # By default, JAX would compare each id with the size of the table, to fill in NaN.
        x = jnp.take(self.embed[...], tokens, axis=0, mode="clip").astype(self.dtype)
        # The lookup stays sharded along the width under fsdp, and an all-to-all then shards rows:
        # what is communicated has the size of the activations, not of the embedding table.
        x = constrain(x, ("replica", "sequence", "embed"))
        if self.config.embedding_scale != 1.0:
            x = x * jnp.asarray(self.config.embedding_scale, self.dtype)
        return constrain(x, ("batch", "sequence", None))

    def rotary_embeddings(self, positions: Int[Array, "b t"]) -> list[RotaryEmbedding]:
        """The rotary embedding of each layer at the tokens' positions."""
        config = self.config
        unwindowed = rotary_embedding(
            positions,
            head_dim=config.head_dim,
            theta=config.rope_theta,
            scaling=config.rope_scaling,
        )
        if config.local_rope_theta is None:
            return [unwindowed] * config.n_layers
        windowed = rotary_embedding(
            positions, head_dim=config.head_dim, theta=config.local_rope_theta, scaling=None
        )
        return [
            unwindowed if config.window(i) is None else windowed for i in range(config.n_layers)
        ]
