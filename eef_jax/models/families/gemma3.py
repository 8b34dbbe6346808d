"""The Gemma 3 family's text models (arXiv:2503.19786).

Gemma 2's layers with norms of each head's query and key instead of soft-capped scores; five of six
layers have a sliding window and another rotary base. Of multimodal models (`model_type` gemma3) the
text model is read, and saved as a text model.
"""

from collections.abc import Mapping
from typing import Any

from eef_jax.errors import ConfigError
from eef_jax.models.config import ModelConfig
from eef_jax.models.families import common, gemma2

MODEL_TYPES = ("gemma3_text", "gemma3")

TENSORS = {
    **gemma2.TENSORS,
    "model.layers.{i}.self_attn.q_norm.weight": "layers.{i}.q_norm.excess",
    "model.layers.{i}.self_attn.k_norm.weight": "layers.{i}.k_norm.excess",
}

# Prefixes of tensors in multimodal folders -> prefixes in `TENSORS`; the longest match counts, and
# None is not read. The hub has the first two, older and newer versions of transformers the others.
RENAMED = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "language_model.": "model.",
    "model.language_model.": "model.",
    **dict.fromkeys(("vision_tower.", "model.vision_tower."), None),
    **dict.fromkeys(("multi_modal_projector.", "model.multi_modal_projector."), None),
}

IGNORED = common.IGNORED

_DEFAULTS = {
    **gemma2.DEFAULTS,
    "model_type": "gemma3_text",
    # Files of multimodal models leave out fields that transformers has defaults for.
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "max_position_embeddings": 131_072,
    "sliding_window_pattern": 6,
    "final_logit_softcapping": None,
}

# transformers reads attn_logit_softcapping but does not use it, so its meaning is not clear.
_PLAIN = {**gemma2.PLAIN, "attn_logit_softcapping": None}
_PLAIN_WITH_IMAGES = {**_PLAIN, "final_logit_softcapping": None}

# Top-level fields of multimodal models that concern the text model.
_OUTSIDE = (
    "auto_map",
    "bos_token_id",
    "eos_token_id",
    "quantization_config",
    "tie_word_embeddings",
)


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a Hugging Face `config.json`.

    Raises:
        ConfigError: for a field that is missing, or a variant that the decoder does not compute.
    """
    plain = _PLAIN_WITH_IMAGES if raw.get("model_type") == "gemma3" else _PLAIN
    fields = common.validated(_text(raw), defaults=_DEFAULTS, plain=plain)
    every = fields["sliding_window_pattern"]
    # transformers 5 has rope_parameters for each type of layer, version 4 one field for each fact.
    rope = fields.get("rope_parameters") or {}
    local = rope.get("sliding_attention") or {}
    if local.get("rope_type", "default") != "default":
        raise ConfigError(
            f"config.json asks for rotary embeddings {local} in layers with a window; computed is "
            "'default' there: use the model at its original context, without scaling"
        )
    fields["rope_parameters"] = rope.get("full_attention")
    return ModelConfig(
        **common.base_fields(fields, activation="hidden_activation"),
        **gemma2.architecture(fields),
        windows=common.windows(fields, lambda layer: (layer + 1) % every != 0),
        local_rope_theta=float(local.get("rope_theta") or fields["rope_local_base_freq"]),
        qk_norm=True,
    )


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Write a `config.json` that `transformers.Gemma3ForCausalLM` understands."""
    far = {"rope_theta": config.rope_theta, **common.rope_fields(config.rope_scaling)}
    near = {"rope_theta": config.local_rope_theta, "rope_type": "default"}
    return common.to_hf_fields(
        config,
        architecture="Gemma3ForCausalLM",
        read=config_from_hf,
        activation="hidden_activation",
        query_pre_attn_scalar=config.query_pre_attn_scalar,
        final_logit_softcapping=config.logit_softcap,
        rope_local_base_freq=config.local_rope_theta,
        rope_parameters={"full_attention": far, "sliding_attention": near},
        **common.layer_type_fields(config),
    )


def _text(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields of the text model; multimodal models have some of them at the top level."""
    if raw.get("model_type") != "gemma3":
        return raw
    if not isinstance(raw.get("text_config"), Mapping):
        raise ConfigError("config.json of a gemma3 model has no text_config: copy the file again")
    found = {name: raw[name] for name in _OUTSIDE if raw.get(name) is not None}
    return {**found, **raw["text_config"], "model_type": "gemma3_text"}
