"""The Qwen 3 family: no biases, norms of each head's query and key, Qwen 2's windows."""

from collections.abc import Mapping
from typing import Any

from eef_jax.models.config import ModelConfig
from eef_jax.models.families import common, llama, qwen2

MODEL_TYPES = ("qwen3",)

TENSORS = {
    **llama.TENSORS,
    "model.layers.{i}.self_attn.q_norm.weight": "layers.{i}.q_norm.weight",
    "model.layers.{i}.self_attn.k_norm.weight": "layers.{i}.k_norm.weight",
}

IGNORED = common.IGNORED

_DEFAULTS = {**qwen2.DEFAULTS, "model_type": "qwen3", "head_dim": 128}

_PLAIN = {"attention_bias": False}


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a Hugging Face `config.json`.

    Raises:
        ConfigError: for a field that is missing, or a variant that the decoder does not compute.
    """
    fields = common.validated(raw, defaults=_DEFAULTS, plain=_PLAIN)
    return ModelConfig(**common.base_fields(fields), windows=qwen2.windows(fields), qk_norm=True)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Write a `config.json` that `transformers.Qwen3ForCausalLM` understands."""
    return common.to_hf_fields(
        config,
        architecture="Qwen3ForCausalLM",
        read=config_from_hf,
        **qwen2.window_fields(config),
    )
