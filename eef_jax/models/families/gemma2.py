"""The Gemma 2 family (arXiv:2408.00118).

Every other layer has a sliding window; attention scores and logits are soft-capped; sublayers are
normed before and after; embeddings are scaled by the square root of their width.
"""

import math
from collections.abc import Mapping
from typing import Any

from eef_jax.models.config import ModelConfig
from eef_jax.models.families import common

MODEL_TYPES = ("gemma2",)

TENSORS = {
    **common.TENSORS,
    "model.norm.weight": "norm.excess",
    **{
        f"model.layers.{{i}}.{theirs}.weight": f"layers.{{i}}.{ours}.excess"
        for theirs, ours in {
            "input_layernorm": "attention_norm",
            "post_attention_layernorm": "attention_post_norm",
            "pre_feedforward_layernorm": "mlp_norm",
            "post_feedforward_layernorm": "mlp_post_norm",
        }.items()
    },
}

IGNORED = common.IGNORED

DEFAULTS = {
    "model_type": "gemma2",
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}

PLAIN = {"attention_bias": False, "use_bidirectional_attention": False}


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a Hugging Face `config.json`.

    Raises:
        ConfigError: for a field that is missing, or a variant that the decoder does not compute.
    """
    fields = common.validated(raw, defaults=DEFAULTS, plain=PLAIN)
    return ModelConfig(
        **common.base_fields(fields, activation="hidden_activation"),
        **architecture(fields),
        windows=common.windows(fields, lambda layer: layer % 2 == 0),
        attention_softcap=fields["attn_logit_softcapping"],
    )


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Write a `config.json` that `transformers.Gemma2ForCausalLM` understands."""
    return common.to_hf_fields(
        config,
        architecture="Gemma2ForCausalLM",
        read=config_from_hf,
        activation="hidden_activation",
        query_pre_attn_scalar=config.query_pre_attn_scalar,
        attn_logit_softcapping=config.attention_softcap,
        final_logit_softcapping=config.logit_softcap,
        **common.layer_type_fields(config),
    )


def architecture(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `ModelConfig` that Gemma 2 and 3 share."""
    return {
        "zero_centered_norms": True,
        "post_norms": True,
        "embedding_scale": math.sqrt(fields["hidden_size"]),
        "query_pre_attn_scalar": fields["query_pre_attn_scalar"],
        "logit_softcap": fields["final_logit_softcapping"],
    }
