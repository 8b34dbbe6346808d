"""The nano model: its configuration and its initial weights."""

import dataclasses
import zlib

import jax.numpy as jnp
import numpy as np
from flax import nnx

from eef_jax.models import build
from eef_jax.models.config import ModelConfig
from eef_jax.models.model import Model
from pretrain.curricula import Curriculum

STRENGTH = 0.1  # standard deviation of an initial embedding, and scale of a head's initial output


def model_config(curriculum: Curriculum, *, bos_id: int, eos_id: int) -> ModelConfig:
    """Return the nano model's configuration."""
    return ModelConfig(
        vocab_size=curriculum.vocab_size,
        d_model=128,
        n_layers=curriculum.n_layers,
        n_heads=4,
        n_kv_heads=4,
        head_dim=32,
        d_ff=384,
        tie_embeddings=True,
        max_positions=2048,
        rope_theta=100_000.0,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
    )


def init_model(config: ModelConfig, seed: int) -> Model:
    """Return a model whose heads already attend to and repeat the word that they are on.

    Key projections equal query projections, and output projections are transposed value
    projections, all orthogonal (mimetic initialization: Trockman and Kolter, 2023,
    https://arxiv.org/abs/2305.09828). Reading consists mostly of finding the same word elsewhere
    and writing it; from independent matrices that takes tens of minutes to appear.

    Args:
        config: the model's configuration.
        seed: seed of the weights.
    """
    model = build.init(config, seed=seed)
    weights = dict(nnx.to_flat_state(model.trainable))
    for path, value in weights.items():
        if path == ("embed",):
            weights[path] = value.replace(STRENGTH * value[...] / jnp.std(value[...]))
        elif path[-2] in ("q_proj", "v_proj"):
            rng = np.random.default_rng([seed, zlib.crc32(str(path).encode())])
            matrix, _ = np.linalg.qr(rng.standard_normal(value.shape))
            twin, twin_matrix = (
                ("k_proj", matrix) if path[-2] == "q_proj" else ("o_proj", STRENGTH * matrix.T)
            )
            weights[path] = value.replace(jnp.asarray(matrix, value.dtype))
            twin_path = (*path[:-2], twin, path[-1])
            weights[twin_path] = value.replace(jnp.asarray(twin_matrix, value.dtype))
    return dataclasses.replace(model, trainable=nnx.from_flat_state(weights))
