"""A decoder small enough for tests, with weights large enough that attention matters."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from eef_jax.models import hf
from eef_jax.models.base import LoraConfig, Model, ModelConfig
from eef_jax.models.decoder import Decoder

CONFIG = ModelConfig(
    vocab_size=64, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24
)


def toy(lora: LoraConfig | None = None, config: ModelConfig = CONFIG, **options) -> Model:
    return hf.init(config, lora=lora, **options)


def forward(decoder: Decoder) -> Callable[..., jax.Array]:
    """The decoder's `__call__`, compiled whole: far quicker than operation by operation."""
    return jax.jit(lambda tokens, positions, segments: decoder(tokens, positions, segments))


def loud(state: nnx.State, seed: int = 1) -> nnx.State:
    """Random values of about 0.3 for every parameter, zero-initialised ones included."""
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(seed)
    noise = [0.3 * rng.standard_normal(leaf.shape, np.float32) for leaf in leaves]
    return jax.tree.unflatten(
        tree, [jax.numpy.asarray(n, leaf.dtype) for n, leaf in zip(noise, leaves, strict=True)]
    )


def rows(count: int, length: int, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens, positions and segment ids of unpacked rows without padding."""
    tokens = jax.random.randint(jax.random.key(seed), (count, length), 0, CONFIG.vocab_size)
    positions = jax.numpy.tile(jax.numpy.arange(length), (count, 1))
    return tokens, positions, jax.numpy.ones((count, length), jax.numpy.int32)
