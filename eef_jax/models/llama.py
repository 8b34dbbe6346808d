"""The Llama family: Llama 2 and 3, SmolLM2, and whatever else calls itself `llama`.

Knows the family's Hugging Face names and config fields, in both directions; the layers themselves
are the shared decoder's.
"""

from collections.abc import Mapping
from typing import Any

from eef_jax.errors import DataError
from eef_jax.models.base import ModelConfig, RopeScaling

MODEL_TYPES = ("llama",)

_PROJECTIONS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}

# Hugging Face key -> path in the decoder. `{i}` is the layer. Matrices are stored [out, in]
# there and [in, out] here, the embedding table [v, d] in both.
TENSORS: dict[str, str] = {
    "model.embed_tokens.weight": "embed",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head",
    "model.layers.{i}.input_layernorm.weight": "layers.{i}.attention_norm.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "layers.{i}.mlp_norm.weight",
    **{
        f"model.layers.{{i}}.{part}.{name}.weight": f"layers.{{i}}.{name}.weight"
        for part, names in _PROJECTIONS.items()
        for name in names
    },
}

# Buffers that old exports carry and that follow from the config.
IGNORED = ("rotary_emb.inv_freq",)


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a Hugging Face `config.json`.

    Raises:
        DataError: for a field that is missing, or a variant that the decoder does not compute.
    """
    required = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    missing = [name for name in (*required, "intermediate_size") if name not in raw]
    if missing:
        raise DataError(f"config.json lacks {', '.join(missing)}: is this a Llama model's folder?")
    for name, plain in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("quantization_config", None),
    ):
        if raw.get(name, plain) != plain:
            raise DataError(
                f"config.json has {name} = {raw[name]!r}; the llama family expects {plain!r}: "
                "export the model without it, or add a family file"
            )
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    n_heads = raw["num_attention_heads"]
    eos = raw.get("eos_token_id")
    return ModelConfig(
        model_type=raw.get("model_type", "llama"),
        vocab_size=raw["vocab_size"],
        d_model=raw["hidden_size"],
        n_layers=raw["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=raw.get("num_key_value_heads") or n_heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // n_heads,
        d_ff=raw["intermediate_size"],
        rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10_000.0),
        rope_scaling=_rope_scaling(rope),
        rms_eps=raw.get("rms_norm_eps", 1e-6),
        tie_embeddings=raw.get("tie_word_embeddings", False),
        max_positions=raw.get("max_position_embeddings", 2048),
        bos_token_id=raw.get("bos_token_id"),
        eos_token_id=tuple(eos) if isinstance(eos, list) else eos,
    )


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Write a `config.json` that `transformers.LlamaForCausalLM` understands (versions 4 and 5)."""
    rope: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling is not None:
        rope = {
            "rope_type": "llama3",
            "factor": config.rope_scaling.factor,
            "low_freq_factor": config.rope_scaling.low_freq_factor,
            "high_freq_factor": config.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": config.rope_scaling.original_max_positions,
        }
    eos = config.eos_token_id
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.d_ff,
        "hidden_act": "silu",
        "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling is None else rope,
        "rope_parameters": {"rope_theta": config.rope_theta, **rope},
        "rms_norm_eps": config.rms_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_positions,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(eos) if isinstance(eos, tuple) else eos,
    }


def _rope_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise DataError(
            f"config.json asks for rope scaling {kind!r}; known: 'default', 'llama3': "
            "use the model at its original context, without scaling"
        )
    return RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_max_positions=rope["original_max_position_embeddings"],
    )
