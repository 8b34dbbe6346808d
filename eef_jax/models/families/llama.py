"""The Llama family: Llama 2 and 3, SmolLM2, and other models of type `llama`."""

from collections.abc import Mapping
from typing import Any

from eef_jax.models.config import ModelConfig
from eef_jax.models.families import common

MODEL_TYPES = ("llama",)

TENSORS = {
    **common.TENSORS,
    "model.norm.weight": "norm.weight",
    "model.layers.{i}.input_layernorm.weight": "layers.{i}.attention_norm.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "layers.{i}.mlp_norm.weight",
}

IGNORED = common.IGNORED

_DEFAULTS = {
    "model_type": "llama",
    "hidden_act": "silu",
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "max_position_embeddings": 2048,
}

_PLAIN = {"attention_bias": False, "mlp_bias": False}


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a Hugging Face `config.json`.

    Raises:
        ConfigError: for a field that is missing, or a variant that the decoder does not compute.
    """
    fields = common.validated(raw, defaults=_DEFAULTS, plain=_PLAIN)
    return ModelConfig(**common.base_fields(fields))


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Write a `config.json` that `transformers.LlamaForCausalLM` understands."""
    return common.to_hf_fields(config, architecture="LlamaForCausalLM", read=config_from_hf)
