"""The Mistral family: Llama's layers with a sliding window.

Versions from 0.2 on have no window (`sliding_window: null`). Models with different windows by layer
(Ministral) are refused.
"""

from collections.abc import Mapping
from typing import Any

from eef_jax.models.config import ModelConfig
from eef_jax.models.families import common, llama

MODEL_TYPES = ("mistral",)

TENSORS = llama.TENSORS
IGNORED = common.IGNORED

_DEFAULTS = {
    "model_type": "mistral",
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
}

# transformers ignores `layer_types` here, with a warning: the file is for another model.
_PLAIN = {"layer_types": None}


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a Hugging Face `config.json`.

    Raises:
        ConfigError: for a field that is missing, or a variant that the decoder does not compute.
    """
    fields = common.validated(raw, defaults=_DEFAULTS, plain=_PLAIN)
    has_window = fields["sliding_window"] is not None
    windows = common.windows(fields, lambda layer: has_window)
    return ModelConfig(**common.base_fields(fields), windows=windows)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Write a `config.json` that `transformers.MistralForCausalLM` understands."""
    return common.to_hf_fields(
        config,
        architecture="MistralForCausalLM",
        read=config_from_hf,
        sliding_window=config.window(0),
    )
