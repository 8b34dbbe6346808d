"""Fields of `config.json` that all families share: validated, read and written.

transformers computes only what the config class of a model type declares. A family accounts for
each of those fields: it is read, or only one value of it is supported, or it changes nothing.
Other fields of a file are ignored, as transformers does.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eef_jax.errors import ConfigError
from eef_jax.models.config import ModelConfig
from eef_jax.models.rope import LinearScaling, Llama3Scaling, RopeScaling

# Hugging Face key -> path in the decoder; families add their norms and biases. `{i}` is the layer.
# Matrices are stored [out, in] there and [in, out] here, the embedding table [v, d] in both.
TENSORS: dict[str, str] = {
    "model.embed_tokens.weight": "embed",
    "lm_head.weight": "head",
    **{
        f"model.layers.{{i}}.{part}.{name}.weight": f"layers.{{i}}.{name}.weight"
        for part, names in {
            "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
            "mlp": ("gate_proj", "up_proj", "down_proj"),
        }.items()
        for name in names
    },
}

# Suffixes of tensors that are not parameters: buffers in old exports that follow from the config.
IGNORED = ("rotary_emb.inv_freq",)

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)

# Supported values of fields that no family computes otherwise.
_PLAIN: dict[str, Any] = {
    "attention_dropout": 0.0,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "auto_map": None,  # code in the folder is not run
}

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"


def validated(
    raw: Mapping[str, Any], *, defaults: Mapping[str, Any], plain: Mapping[str, Any]
) -> dict[str, Any]:
    """Add defaults to a `config.json` and refuse what is not supported.

    Args:
        raw: the `config.json`.
        defaults: values of missing fields.
        plain: the only supported value of each field that has one (null means the same).

    Raises:
        ConfigError: a field has an unsupported value, or a size is missing.
    """
    fields = {**defaults, **raw}
    model_type = fields["model_type"]
    for name, value in {**_PLAIN, **plain}.items():
        if raw.get(name) not in (None, value):
            raise ConfigError(
                f"config.json has {name} = {raw[name]!r}; the {model_type} family computes "
                f"{value!r} only: export the model without it, or add a family file"
            )
    bad = [name for name in _SIZES if not isinstance(fields.get(name), int) or not fields[name] > 0]
    if bad:
        values = ", ".join(f"{name} = {fields.get(name)!r}" for name in bad)
        raise ConfigError(
            f"config.json has {values}; expected whole numbers above 0: "
            f"is this the folder of a {model_type} model?"
        )
    return fields


def base_fields(fields: Mapping[str, Any], *, activation: str = "hidden_act") -> dict[str, Any]:
    """The arguments of `ModelConfig` that all families set.

    Args:
        fields: from `validated`.
        activation: name of the field with the activation of the feed-forward.

    Raises:
        ConfigError: the activation or the rotary scaling is not supported.
    """
    act = fields[activation]
    if act not in _ACTIVATIONS:
        known = " and ".join(repr(name) for name in _ACTIVATIONS)
        raise ConfigError(
            f"config.json has {activation} = {act!r}; computed are {known}: use another model"
        )
    heads, eos = fields["num_attention_heads"], fields.get("eos_token_id")
    theta, scaling = _rope(fields)
    return {
        "model_type": fields["model_type"],
        "vocab_size": fields["vocab_size"],
        "d_model": fields["hidden_size"],
        "n_layers": fields["num_hidden_layers"],
        "n_heads": heads,
        "n_kv_heads": fields.get("num_key_value_heads") or heads,
        "head_dim": fields.get("head_dim") or fields["hidden_size"] // heads,
        "d_ff": fields["intermediate_size"],
        "activation": _ACTIVATIONS[act],
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rms_eps": fields["rms_norm_eps"],
        "tie_embeddings": fields["tie_word_embeddings"],
        "max_positions": fields["max_position_embeddings"],
        "bos_token_id": fields.get("bos_token_id"),
        "eos_token_id": tuple(eos) if isinstance(eos, list) else eos,
    }


def windows(fields: Mapping[str, Any], is_local: Callable[[int], bool]) -> tuple[int | None, ...]:
    """Sliding window of each layer, from `layer_types` or the family's rule; () for none at all.

    Args:
        fields: from `validated`.
        is_local: whether a layer number has a window in files without `layer_types`.

    Raises:
        ConfigError: a layer type is unknown, or local layers have no `sliding_window`.
    """
    layers, width = fields["num_hidden_layers"], fields.get("sliding_window")
    types: Sequence[str] | None = fields.get("layer_types")
    if types is None:
        types = [_LOCAL if is_local(i) else _GLOBAL for i in range(layers)]
    if len(types) != layers or not set(types) <= {_LOCAL, _GLOBAL}:
        raise ConfigError(
            f"config.json has layer_types = {list(types)}; computed are {_LOCAL!r} and "
            f"{_GLOBAL!r}, one for each of its {layers} layers: use another model"
        )
    if _LOCAL not in types:
        return ()
    if not width:
        raise ConfigError(
            f"config.json has layers of {_LOCAL!r} but sliding_window = {width!r}: "
            "write the number of tokens they see into it"
        )
    return tuple(width if kind == _LOCAL else None for kind in types)


def layer_type_fields(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `windows`: the fields that it reads."""
    widths = [config.window(i) for i in range(config.n_layers)]
    types = [_GLOBAL if width is None else _LOCAL for width in widths]
    return {"sliding_window": next(filter(None, widths), None), "layer_types": types}


def to_hf_fields(
    config: ModelConfig,
    *,
    architecture: str,
    read: Callable[[Mapping[str, Any]], ModelConfig],
    activation: str = "hidden_act",
    **own: Any,
) -> dict[str, Any]:
    """A `config.json` that transformers understands (versions 4 and 5).

    Args:
        config: shape of the decoder.
        architecture: name of the model class in transformers.
        read: the family's reader; reading the result must give `config` again.
        activation: name of the field with the activation of the feed-forward.
        own: fields of the family; they replace common ones.

    Raises:
        ConfigError: the family's `config.json` cannot express the decoder.
    """
    eos, rope = config.eos_token_id, rope_fields(config.rope_scaling)
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    raw = {
        "architectures": [architecture],
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.d_ff,
        activation: activations[config.activation],
        "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling is None else rope,
        "rope_parameters": {"rope_theta": config.rope_theta, **rope},
        "rms_norm_eps": config.rms_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_positions,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(eos) if isinstance(eos, tuple) else eos,
        **own,
    }
    again = read(raw)
    lost = [
        f"{field.name} = {getattr(config, field.name)!r}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(again, field.name)
    ]
    if lost:
        raise ConfigError(
            f"a {config.model_type} folder cannot say {', '.join(lost)}: "
            "set model_type to a family that has it"
        )
    return raw


def rope_fields(scaling: RopeScaling | None) -> dict[str, Any]:
    """Fields of a `config.json` for a rotary scaling."""
    if scaling is None:
        return {"rope_type": "default"}
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_positions,
    }


def _rope(fields: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary frequencies (`rope_parameters` in transformers 5)."""
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or fields["rope_theta"])
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "linear", "llama3") or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigError(
            f"config.json asks for rotary embeddings {dict(rope)}; computed are the types "
            "'default', 'linear' and 'llama3' of whole heads: use the model at its original "
            "context, without scaling"
        )
    try:
        if kind == "linear":
            return theta, LinearScaling(factor=rope["factor"])
        if kind == "llama3":
            return theta, Llama3Scaling(
                factor=rope["factor"],
                low_freq_factor=rope["low_freq_factor"],
                high_freq_factor=rope["high_freq_factor"],
                original_max_positions=rope["original_max_position_embeddings"],
            )
    except KeyError as error:
        raise ConfigError(
            f"config.json lacks {error} of the {kind!r} rotary scaling: copy the file again"
        ) from error
    return theta, None
