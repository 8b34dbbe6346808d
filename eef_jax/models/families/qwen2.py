"""The Qwen 2 family (Qwen2, Qwen2.5): biases on queries, keys and values.

Layers from `max_window_layers` on may have a sliding window (`use_sliding_window`); released models
do not use it.
"""

from collections.abc import Mapping
from typing import Any

from eef_jax.models.config import ModelConfig
from eef_jax.models.families import common, llama

MODEL_TYPES = ("qwen2",)

TENSORS = {
    **llama.TENSORS,
    **{
        f"model.layers.{{i}}.self_attn.{name}.bias": f"layers.{{i}}.{name}.bias"
        for name in ("q_proj", "k_proj", "v_proj")
    },
}

IGNORED = common.IGNORED

DEFAULTS = {
    "model_type": "qwen2",
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "max_position_embeddings": 32_768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a Hugging Face `config.json`.

    Raises:
        ConfigError: for a field that is missing, or a variant that the decoder does not compute.
    """
    fields = common.validated(raw, defaults=DEFAULTS, plain={})
    return ModelConfig(**common.base_fields(fields), windows=windows(fields), attention_bias=True)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Write a `config.json` that `transformers.Qwen2ForCausalLM` understands."""
    return common.to_hf_fields(
        config,
        architecture="Qwen2ForCausalLM",
        read=config_from_hf,
        **window_fields(config),
    )


def windows(fields: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Sliding windows of Qwen 2 and 3: in the last layers, if they are switched on."""
    used = fields["use_sliding_window"] and fields["sliding_window"] is not None
    if not used:
        fields = {**fields, "sliding_window": None}
    return common.windows(fields, lambda layer: used and layer >= fields["max_window_layers"])


def window_fields(config: ModelConfig) -> dict[str, Any]:
    """The fields that `windows` reads."""
    local = [config.window(i) is not None for i in range(config.n_layers)]
    first = local.index(True) if any(local) else config.n_layers
    return {
        "use_sliding_window": any(local),
        "max_window_layers": first,  # for readers that do not know layer_types
        **common.layer_type_fields(config),
    }
