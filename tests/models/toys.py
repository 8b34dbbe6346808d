"""Decoders small enough for tests, with weights large enough that attention matters."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from eef_jax.config.sections import LoraConfig
from eef_jax.models import build
from eef_jax.models.config import ModelConfig, ModelOptions
from eef_jax.models.decoder import Decoder
from eef_jax.models.families import registry
from eef_jax.models.model import Model

CONFIG = ModelConfig(
    vocab_size=64, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24
)

# A small `config.json` that every family reads: each takes the fields that it knows. Windows are
# short, and of one layer at least.
TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 12,
    "use_sliding_window": True,
    "sliding_window": 20,
    "sliding_window_pattern": 2,
    "max_window_layers": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def tiny(model_type: str, **changes: Any) -> dict[str, Any]:
    """A small `config.json` of a family; one that nests its text model's fields finds them too."""
    fields = {**TINY, **changes}
    return {**fields, "text_config": fields, "model_type": model_type}


def config_of(model_type: str, **changes: Any) -> ModelConfig:
    """The shape of a family's small decoder."""
    return registry.family(model_type).config_from_hf(tiny(model_type, **changes))


def toy(
    lora: LoraConfig | None = None,
    config: ModelConfig = CONFIG,
    *,
    mesh: Mesh | None = None,
    seed: int = 0,
    **options: Any,
) -> Model:
    """A model with random weights; `options` are fields of `ModelOptions`."""
    return build.init(config, ModelOptions(lora=lora, **options), mesh=mesh, seed=seed)


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
