"""Load and save models as Hugging Face folders.

One table in each family file drives both directions (see `hf_names`). Weights are streamed: every
device gets its shard from the mapped file, one tensor after the other, so that no process holds a
second copy of the model.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from eef_jax.errors import DataError
from eef_jax.models import build
from eef_jax.models.config import DEFAULT_OPTIONS, ModelConfig, ModelOptions
from eef_jax.models.decoder import Decoder
from eef_jax.models.families import hf_names
from eef_jax.models.families.registry import family
from eef_jax.models.huggingface import foreign, safetensors
from eef_jax.models.huggingface.reading import read_leaf, tensor_mismatches
from eef_jax.models.initial import initial
from eef_jax.models.linear import Linear
from eef_jax.models.model import Model
from eef_jax.models.placing import Leaf, Source, SourceOf, parameter_leaves, unstacked_shapes
from eef_jax.storage import files

CONFIG = "config.json"
REMEDY = "copy the whole model folder again, or name a Hugging Face model folder"


def load(
    path: epath.PathLike,
    options: ModelOptions = DEFAULT_OPTIONS,
    *,
    mesh: Mesh | None = None,
    seed: int = 0,
) -> Model:
    """Read a model from a Hugging Face folder (config.json and safetensors, sharded or not).

    Args:
        path: the folder.
        options: adapter, types and layout.
        mesh: devices that the parameters are sharded over; None for the default device.
        seed: decides the values of a fresh adapter's `lora_a` (`lora_b` is 0: the adapter changes
            nothing yet).

    Raises:
        ConfigError: no family serves the folder's model_type, or the options do not fit the model
            (see `build.init`).
        DataError: a file is missing or unreadable, or tensors are missing, unexpected or of
            another shape than the config says: all of them are named at once.
    """
    folder = epath.Path(path)
    config = read_config(folder)

    def sources(shapes: build.Shapes) -> SourceOf:
        stored = _stored_tensors(folder, config, shapes)

        def source_of(name: hf_names.ParamPath, leaf: Leaf) -> Source:
            if name in stored:
                return functools.partial(read_leaf, stored[name], name, leaf)
            assert isinstance(leaf, nnx.LoRAParam), f"no name in TENSORS means {name}"
            return initial(name, shapes[name].shape, seed).__getitem__

        return source_of

    return build.from_sources(config, options, sources, mesh=mesh)


def abstract_from_folder(path: epath.PathLike, options: ModelOptions = DEFAULT_OPTIONS) -> Model:
    """What `load` would read, with shapes (`jax.ShapeDtypeStruct`) in place of values.

    Args:
        path: the folder; its config.json is enough.
        options: adapter, types and layout.

    Raises:
        ConfigError: no family serves the folder's model_type, or the options do not fit the model.
        DataError: config.json is missing, or asks for what the decoder does not compute.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    model = build.abstract_model(read_config(epath.Path(path)), options)

    def placed(state: nnx.State) -> nnx.State:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), state
        )

    return dataclasses.replace(
        model, frozen=placed(model.frozen), trainable=placed(model.trainable)
    )


def check_folder(path: epath.PathLike, options: ModelOptions = DEFAULT_OPTIONS) -> None:
    """Check a folder as `load` would, by config.json and the headers of its files.

    Args:
        path: the folder.
        options: adapter, types and layout.

    Raises:
        ConfigError: as `load`.
        DataError: as `load`.
    """
    folder = epath.Path(path)
    config = read_config(folder)
    build.abstract_model(config, options)  # the adapter and the kernels fit the model
    leaves = parameter_leaves(build.abstract_model(config).decoder)
    _stored_tensors(folder, config, unstacked_shapes(leaves))


def read_config(folder: epath.Path) -> ModelConfig:
    """Read a folder's config.json.

    Raises:
        ConfigError: when no family serves its model_type.
        DataError: when it is missing or damaged, or asks for what the decoder does not compute.
    """
    if not (folder / CONFIG).exists():
        raise DataError(foreign.missing(folder / CONFIG))
    raw = files.read_json(folder / CONFIG, remedy=REMEDY)
    if said := foreign.quantized_config(folder / CONFIG, raw):
        raise DataError(said)
    return family(raw.get("model_type", "(none given)")).config_from_hf(raw)


def save(
    model: Model,
    path: epath.PathLike,
    *,
    dtype: DTypeLike | None = None,
    config: Mapping[str, Any] | None = None,
    max_shard: int = safetensors.MAX_SHARD,
) -> None:
    """Write a model, its adapter folded into the base, as a folder that `transformers` loads.

    Args:
        model: the model.
        path: folder, created if missing. config.json is written last.
        dtype: type that tensors are stored in; None keeps the type of each parameter.
        config: fields of config.json, e.g. those of the base; None derives them from the shape.
        max_shard: bytes per file of weights; a larger model has several files and an index.
    """
    folder = epath.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    decoder = build.unrolled(model).decoder
    leaves = parameter_leaves(decoder)
    stored = hf_names.stored_paths(model.config, leaves)

    def planned(leaf_path: hf_names.ParamPath) -> safetensors.TensorSpec:
        value = jax.eval_shape(lambda: _merged_value(decoder, leaf_path))
        transposed = hf_names.is_transposed(value.ndim, leaf_path)
        shape = value.shape[::-1] if transposed else value.shape
        return safetensors.TensorSpec(dtype=jnp.dtype(dtype or value.dtype), shape=shape)

    def produce(name: str) -> Float[np.ndarray, "..."]:
        leaf_path = stored[name]
        value = np.asarray(jax.device_get(_merged_value(decoder, leaf_path)))
        return hf_names.to_hf_layout(value, leaf_path)

    plan = {name: planned(leaf_path) for name, leaf_path in stored.items()}
    safetensors.write_folder(folder, plan, produce, max_shard=max_shard)
    stored_dtype = next(iter(plan.values())).dtype.name
    raw = config or family(model.config.model_type).config_to_hf(model.config)
    files.write_json(folder / CONFIG, {**raw, "dtype": stored_dtype, "torch_dtype": stored_dtype})


def _stored_tensors(
    folder: epath.Path, config: ModelConfig, shapes: build.Shapes
) -> dict[hf_names.ParamPath, safetensors.StoredTensor]:
    """The tensor of each parameter that a folder stores (adapters are not among them).

    Raises:
        DataError: tensors are missing, unexpected or of another shape, each named.
    """
    paths = hf_names.stored_paths(config, shapes)
    found = _needed(config, hf_names.canonical_names(config, safetensors.open_folder(folder)))
    if problems := tensor_mismatches(paths, found, shapes):
        lines = "\n  ".join(problems)
        raise DataError(
            f"{folder} does not hold the tensors its config.json describes:\n  {lines}\n"
            "copy the whole folder again, or mend config.json"
        )
    return {path: found[name] for name, path in paths.items()}


def _needed(
    config: ModelConfig, found: Mapping[str, safetensors.StoredTensor]
) -> dict[str, safetensors.StoredTensor]:
    """The tensors of a folder without buffers and copies of tied weights."""
    module = family(config.model_type)

    def copied(name: str) -> bool:
        # An export of a tied model may store the head as well, as a copy of the embedding table.
        return config.tie_embeddings and module.TENSORS.get(name) == "head"

    return {
        name: tensor
        for name, tensor in found.items()
        if not copied(name) and not name.endswith(module.IGNORED)
    }


def _merged_value(decoder: Decoder, path: hf_names.ParamPath) -> Float[Array, "..."]:
    """The value of a parameter; the weight of a projection includes its adapter."""
    owner = hf_names.submodule(decoder, path[:-1])
    if path[-1] == "weight" and isinstance(owner, Linear):
        return owner.merged_weight()
    return getattr(owner, path[-1])[...]
