"""LoRA adapters as PEFT folders: `adapter_model.safetensors` and `adapter_config.json`.

vLLM, PEFT and transformers load such a folder together with its base. Values are saved and loaded
bit for bit, without PEFT or torch.
"""

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from eef_jax.config.sections import TARGETS, LoraConfig
from eef_jax.errors import ConfigError, DataError
from eef_jax.models import placing, stacking
from eef_jax.models.config import ModelConfig
from eef_jax.models.families import hf_names
from eef_jax.models.huggingface import reading, safetensors
from eef_jax.models.model import Model, content_hash
from eef_jax.storage import files

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_HALVES = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight"}
_BASE = "eef_jax_base"  # key in the weights' header: types and hash of the base's frozen weights

# Fields of PEFT that do not change what a trained LoRA adapter computes; the matrices
# themselves tell which modules are adapted. Any other field that is set is refused.
_READ = frozenset(
    (
        "peft_type task_type auto_mapping base_model_name_or_path revision inference_mode "
        "peft_version r lora_alpha lora_dropout use_rslora bias init_lora_weights target_modules "
        "exclude_modules layers_to_transform layers_pattern loftq_config eva_config corda_config "
        "lora_ga_config megatron_core qalora_group_size runtime_config"
    ).split()
)
# Values of init_lora_weights that leave the base as it is. All others take something out of it.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
_MERGE = (
    "merge the adapter into its base with PEFT (PeftModel.from_pretrained, merge_and_unload, "
    "save_pretrained) and load that"
)

# PEFT's own names have the prefix and no adapter's name; those of a state_dict have either.
_MATRIX = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.(?P<half>lora_[AB])(?:\.(?P<adapter>[^.]+))?\.weight"
)
# What other tensors are, by a part of their name.
_OTHERS = {
    "lora_embedding_": "an adapter of the embeddings",
    "lora_magnitude_vector": "DoRA's magnitudes",
    "lora_A": "a bias of the adapter",
    "lora_B": "a bias of the adapter",
    "embed_tokens": "a whole embedding table: it was resized or tuned with the adapter",
    "lm_head": "a whole output head: it was resized or tuned with the adapter",
    "modules_to_save": "a module that was tuned as a whole",
}


def save(model: Model, path: epath.PathLike, *, base: str, revision: str = "") -> None:
    """Write a model's adapter.

    Args:
        model: a model with an adapter.
        path: folder, created if missing. adapter_config.json is written last.
        base: folder or hub name of the base, stored for those who load the adapter.
        revision: its commit on the hub; "" for a folder.

    Raises:
        ConfigError: the model has no adapter.
    """
    if model.lora is None:
        raise ConfigError(
            "all parameters of this model were tuned, there is no adapter: write it merged"
        )
    leaves = stacking.by_layer(model.trainable)
    stored = _stored(model.config, leaves)
    plan = {
        name: safetensors.TensorSpec(
            dtype=np.dtype(variable.dtype), shape=variable.shape[-2:][::-1]
        )
        for name, (variable, _) in ((name, leaves[at]) for name, at in stored.items())
    }

    def produce(name: str) -> Float[np.ndarray, "d_out d_in"]:
        return hf_names.to_hf_layout(stacking.layer_value(*leaves[stored[name]]), stored[name])

    folder = epath.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {_BASE: _identity(model)}
    safetensors.write_file(folder / WEIGHTS, plan, produce, metadata=metadata)
    # Always names: PEFT takes a regular expression only as a single string.
    known = hf_names.projection_names(model.config).values()
    targets = _targets({_module(name) for name in stored}, known)
    files.write_json(folder / CONFIG, _config_to_peft(model.lora, targets, base, revision))


def read_config(path: epath.PathLike, config: ModelConfig) -> LoraConfig:
    """Read the configuration of an adapter.

    Args:
        path: the adapter's folder.
        config: shape of its base.

    Raises:
        DataError: a file is missing or damaged, the adapter uses an unsupported option, or it
            adapts modules that the base lacks.
    """
    folder = files.to_path(path)
    if not (folder / CONFIG).exists():
        raise DataError(
            f"{folder / CONFIG} is missing: an adapter's folder as PEFT saves it is expected"
        )
    raw = files.read_json(folder / CONFIG, remedy="copy the adapter's folder again")
    _check_supported(folder, raw)
    known = set(hf_names.projection_names(config).values())
    adapted = {_module(name) for name in _open(folder)[0]}
    if foreign := sorted(adapted - known):
        raise DataError(
            f"{folder} adapts {len(foreign)} modules that the base lacks or that take no adapter "
            f"here, such as {foreign[0]}; the base's are named like {min(known)}: load the base "
            f"that it was tuned on ({raw.get('base_model_name_or_path')})"
        )
    try:
        return LoraConfig(
            rank=int(raw["r"]),
            alpha=float(raw["lora_alpha"]),
            dropout=float(raw.get("lora_dropout") or 0.0),
            targets=_targets(adapted, known),
            rslora=bool(raw.get("use_rslora")),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise DataError(
            f"{folder / CONFIG} describes no adapter ({error}): save it with PEFT again"
        ) from error


def load(path: epath.PathLike, model: Model, *, mesh: Mesh | None = None) -> nnx.State:
    """Read the values of an adapter.

    Args:
        path: the adapter's folder.
        model: made with the configuration from `read_config`. If the folder names the hash of its
            base (`save` does) and the types are equal, it must be that of this model.
        mesh: devices that the values are sharded over; None for the default device.

    Returns:
        A state to replace `model.trainable`.

    Raises:
        DataError: tensors are missing, unexpected or of another shape (all are named), or the
            adapter belongs to another base.
    """
    folder = files.to_path(path)
    found, metadata = _open(folder)
    leaves: placing.Leaves = dict(nnx.to_flat_state(model.trainable))
    own = placing.unstacked_shapes(leaves)
    stored = _stored(model.config, own)
    if problems := reading.tensor_mismatches(stored, found, own):
        lines = "\n  ".join(problems)
        raise DataError(
            f"{folder} holds another adapter than its {CONFIG} and the base say:\n  {lines}\n"
            "load the base that it was tuned on, or copy the folder again"
        )
    _check_base(folder, metadata, model)
    tensors = {path: found[name] for name, path in stored.items()}

    def source_of(path: hf_names.ParamPath, leaf: placing.Leaf) -> placing.Source:
        return functools.partial(reading.read_leaf, tensors[path], path, leaf)

    return nnx.from_flat_state(placing.fill(leaves, source_of, mesh))


def _open(
    folder: epath.Path,
) -> tuple[dict[str, safetensors.StoredTensor], dict[str, str]]:
    """List an adapter's matrices by the names that PEFT saves them under, and the metadata.

    Raises:
        DataError: the file is missing, damaged or in another form, or holds other tensors too.
    """
    found, metadata = safetensors.open_file(folder / WEIGHTS)
    names: dict[str, str] = {}
    others: list[str] = []
    for name in found:
        if matched := _MATRIX.fullmatch(name):
            plain = f"{_PREFIX}{matched['module']}.{matched['half']}.weight"
            if plain in names:
                raise DataError(
                    f"{folder / WEIGHTS} holds several adapters, such as {names[plain]} and "
                    f"{name}: save the one to be loaded alone (selected_adapters of PEFT's "
                    "save_pretrained)"
                )
            names[plain] = name
        else:
            others.append(name)
    if others:
        what = next((said for part, said in _OTHERS.items() if part in others[0]), "no LoRA matrix")
        raise DataError(
            f"{folder / WEIGHTS} holds {len(others)} tensors that are not an adapter's matrices, "
            f"such as {others[0]} ({what}): {_MERGE}"
        )
    return {plain: found[name] for plain, name in names.items()}, metadata


def _stored(
    config: ModelConfig, paths: Mapping[hf_names.ParamPath, Any]
) -> dict[str, hf_names.ParamPath]:
    """Map PEFT's names to paths, for `lora_a` and `lora_b` of each projection."""
    modules = hf_names.projection_names(config)
    return {f"{_PREFIX}{modules[path[:-1]]}.{_HALVES[path[-1]]}": path for path in sorted(paths)}


def _module(name: str) -> str:
    """The adapted module of a tensor's name; other names stay as they are."""
    for half in _HALVES.values():
        name = name.removesuffix(f".{half}")
    return name.removeprefix(_PREFIX)


def _targets(adapted: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """The shortest targets for these modules: names of projections, or else full names."""
    short = {name.rsplit(".", 1)[-1] for name in adapted}
    if all(name in adapted for name in known if name.rsplit(".", 1)[-1] in short):
        return tuple(target for target in TARGETS if target in short)
    return tuple(sorted(adapted))


def _config_to_peft(
    lora: LoraConfig, targets: Sequence[str], base: str, revision: str
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision or None,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(targets),
        "use_rslora": lora.rslora,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _check_supported(folder: epath.Path, raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise DataError(
            f"{folder / CONFIG} is of the type {raw.get('peft_type')!r}, expected 'LORA': other "
            "kinds of adapters are not computed here"
        )
    start = raw.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise DataError(
            f"{folder / CONFIG} was initialised by init_lora_weights = {start!r}, which also "
            "changes the base, so that the adapter does not fit the base that it names: "
            f"{_MERGE}; or save it again with path_initial_model_for_weight_conversion of "
            "save_pretrained, where PEFT can convert it to plain LoRA"
        )
    asked = [name for name, value in raw.items() if value and name not in _READ]
    if raw.get("bias", "none") != "none":
        asked.append("bias")
    if asked:
        values = ", ".join(f"{name} = {raw[name]!r}" for name in asked)
        raise DataError(
            f"{folder / CONFIG} asks for {values}, which is not computed here: {_MERGE}, or tune a "
            "plain LoRA adapter"
        )


def _identity(model: Model) -> str:
    """Types and hash of the frozen weights; the hash is only comparable for equal types."""
    types = sorted({leaf.dtype.name for leaf in jax.tree.leaves(model.frozen)})
    return f"{'+'.join(types)}:{content_hash(model.frozen)}"


def _check_base(folder: epath.Path, metadata: Mapping[str, str], model: Model) -> None:
    recorded = metadata.get(_BASE)
    if recorded is None:
        return
    ours = _identity(model)
    if recorded != ours and recorded.split(":")[0] == ours.split(":")[0]:
        raise DataError(
            f"{folder} was tuned on a base with the hash {recorded.split(':')[1][:12]}, the loaded "
            f"one has {ours.split(':')[1][:12]}: load the base that its {CONFIG} names"
        )
