"""Hugging Face folders <-> models: `load`, `save`, and `init` for a model without a folder.

One table in each family file drives both directions (see `hf_names`). Weights stream: every device
gets its shard straight from the file's pages, one tensor after the other, so that no process ever
holds a second copy of the model. Knows no tokenizer.
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

from eef_jax import kernels
from eef_jax.errors import ConfigError, DataError
from eef_jax.models import stacking
from eef_jax.models.config import LoraConfig, ModelConfig
from eef_jax.models.decoder import Decoder
from eef_jax.models.families import hf_names
from eef_jax.models.families.registry import family
from eef_jax.models.huggingface import safetensors
from eef_jax.models.initial import initial
from eef_jax.models.linear import Linear, adapt
from eef_jax.models.model import Model
from eef_jax.models.placing import (
    Leaf,
    Source,
    parameter_leaves,
    place_leaf,
    read_leaf,
    stacked_source,
    tensor_mismatches,
    unstacked_shapes,
)
from eef_jax.models.quantize import quantize_projections
from eef_jax.storage import files

CONFIG = "config.json"
REMEDY = "copy the whole model folder again, or name a Hugging Face model folder"


def init(
    config: ModelConfig,
    *,
    lora: LoraConfig | None = None,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
    quantization: str = "",
    attention: str = "xla",
    scan: bool = False,
    remat: str = "none",
    mesh: Mesh | None = None,
    seed: int = 0,
) -> Model:
    """Make a model with random weights.

    Args:
        config: its shape.
        lora: the adapter, which alone is trainable then; None makes every parameter trainable.
        dtype: type the layers compute in.
        param_dtype: type the parameters are stored in (an adapter's are float32).
        quantization: `int8` or `nf4`: how the projections' weights are stored instead; "" for not.
        attention: name in the attention registry, or "auto" for what the devices have.
        scan: stack the layers, so that training compiles one of them (see `stacking`).
        remat: what training keeps for the way back, a name in `depth.POLICIES`.
        mesh: where the parameters go; None leaves them on the default device.
        seed: makes the weights.

    Raises:
        ConfigError: for an adapter that fits no projection, or quantized weights without one.
    """
    decoder = _blank(
        config,
        lora,
        quantization,
        scan,
        dtype=dtype,
        param_dtype=param_dtype,
        attention=kernels.resolve(attention, mesh, dtype, config),
        remat=remat,
    )
    leaves = parameter_leaves(decoder)
    shapes = {name: leaf.shape for name, leaf in unstacked_shapes(leaves).items()}

    def source_of(name: hf_names.ParamPath) -> Source:
        return initial(name, shapes[name], seed).__getitem__

    filled: dict[hf_names.ParamPath, nnx.Variable] = {}
    for path, leaf in leaves.items():
        filled |= place_leaf(path, leaf, stacked_source(path, leaf, source_of), mesh)
    return _model(decoder, filled, config, lora)


def load(
    path: epath.PathLike,
    *,
    lora: LoraConfig | None = None,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
    quantization: str = "",
    attention: str = "xla",
    scan: bool = False,
    remat: str = "none",
    mesh: Mesh | None = None,
    seed: int = 0,
) -> Model:
    """Read a model from a Hugging Face folder (config.json and safetensors, sharded or not).

    Args:
        path: the folder.
        lora: as for `init`, and so are the next seven.
        dtype: see `init`.
        param_dtype: see `init`.
        quantization: see `init`.
        attention: see `init`.
        scan: see `init`.
        remat: see `init`.
        mesh: see `init`.
        seed: makes the adapter's first half (its second is 0: a fresh adapter changes nothing).

    Raises:
        ConfigError: when no family serves the folder's model_type, or as for `init`.
        DataError: when a file is missing or unreadable, or tensors are missing, unexpected or of
            another shape than the config says: all of them are named at once.
    """
    folder = epath.Path(path)
    config = read_config(folder)
    decoder = _blank(
        config,
        lora,
        quantization,
        scan,
        dtype=dtype,
        param_dtype=param_dtype,
        attention=kernels.resolve(attention, mesh, dtype, config),
        remat=remat,
    )
    leaves = parameter_leaves(decoder)
    own = unstacked_shapes(leaves)
    stored = hf_names.stored_paths(config, own)
    found = _needed(config, hf_names.canonical_names(config, safetensors.open_folder(folder)))
    if problems := tensor_mismatches(stored, found, own):
        lines = "\n  ".join(problems)
        raise DataError(
            f"{folder} does not hold the tensors its config.json describes:\n  {lines}\n"
            "copy the whole folder again, or mend config.json"
        )
    of = {leaf_path: found[name] for name, leaf_path in stored.items()}
    filled: dict[hf_names.ParamPath, nnx.Variable] = {}
    for leaf_path, leaf in leaves.items():

        def source_of(name: hf_names.ParamPath, leaf: Leaf = leaf) -> Source:
            if name in of:
                return functools.partial(read_leaf, of[name], name, leaf)
            assert isinstance(leaf, nnx.LoRAParam), f"no name in TENSORS means {name}"
            return initial(name, own[name].shape, seed).__getitem__

        filled |= place_leaf(leaf_path, leaf, stacked_source(leaf_path, leaf, source_of), mesh)
    return _model(decoder, filled, config, lora)


def abstract_from_folder(
    path: epath.PathLike,
    *,
    lora: LoraConfig | None = None,
    param_dtype: DTypeLike = "float32",
    quantization: str = "",
) -> Model:
    """What `load` would read, with shapes (`jax.ShapeDtypeStruct`) in place of values.

    Raises:
        ConfigError: as for `load`.
        DataError: config.json is missing or asks for what the decoder does not compute.
    """
    config = read_config(epath.Path(path))
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    model = abstract(config, lora=lora, quantization=quantization, param_dtype=param_dtype)

    def placed(state: nnx.State) -> nnx.State:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), state
        )

    return dataclasses.replace(
        model, frozen=placed(model.frozen), trainable=placed(model.trainable)
    )


def abstract(
    config: ModelConfig,
    *,
    lora: LoraConfig | None = None,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
    quantization: str = "",
    attention: str = "xla",
    scan: bool = False,
    remat: str = "none",
) -> Model:
    """A model of shapes (`jax.ShapeDtypeStruct`) in place of values: nothing is allocated.

    What programs are compiled from ahead of time. Arguments and errors are those of `init`.
    """
    options = {"dtype": dtype, "param_dtype": param_dtype, "attention": attention, "remat": remat}
    decoder = _blank(config, lora, quantization, scan, **options)
    shapes = dict(nnx.to_flat_state(nnx.state(decoder, nnx.Param)))
    return _model(decoder, shapes, config, lora)


def unrolled(model: Model) -> Model:
    """The model with each layer for itself, as sampling and files want it; itself where it is so.

    Layers are slices of the stacks, made beside them on their devices.
    """
    decoder = model.decoder
    if not decoder.scanned:
        return model
    stacking.unstack_layers(decoder)
    return _taken_apart(decoder, model.config, model.lora)


def read_config(folder: epath.Path) -> ModelConfig:
    """Read a folder's config.json.

    Raises:
        ConfigError: when no family serves its model_type.
        DataError: when it is missing or damaged, or asks for what the decoder does not compute.
    """
    raw = files.read_json(folder / CONFIG, remedy=REMEDY)
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
        model: what to write.
        path: the folder; made where it is missing. config.json is written last.
        dtype: type the tensors are stored in; None keeps the parameters' own.
        config: fields of config.json, such as those of the base's own; None: what the family makes
            of the model's shape.
        max_shard: bytes in one file of weights; beyond, there are several with an index.
    """
    folder = epath.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    decoder = unrolled(model).decoder
    leaves = parameter_leaves(decoder)
    stored = hf_names.stored_paths(model.config, leaves)

    def planned(leaf_path: hf_names.ParamPath) -> safetensors.TensorSpec:
        value = jax.eval_shape(lambda: _folded(decoder, leaf_path))
        turned = hf_names.is_transposed(value.ndim, leaf_path)
        shape = value.shape[::-1] if turned else value.shape
        return safetensors.TensorSpec(dtype=jnp.dtype(dtype or value.dtype), shape=shape)

    def produce(name: str) -> np.ndarray:
        leaf_path = stored[name]
        value = np.asarray(jax.device_get(_folded(decoder, leaf_path)))
        return hf_names.to_hf_layout(value, leaf_path)

    plan = {name: planned(leaf_path) for name, leaf_path in stored.items()}
    safetensors.write_folder(folder, plan, produce, max_shard=max_shard)
    kept = next(iter(plan.values())).dtype.name
    raw = config or family(model.config.model_type).config_to_hf(model.config)
    files.write_json(folder / CONFIG, {**raw, "dtype": kept, "torch_dtype": kept})


def _needed(
    config: ModelConfig, found: Mapping[str, safetensors.StoredTensor]
) -> dict[str, safetensors.StoredTensor]:
    """What a folder holds, less what follows from the rest."""
    module = family(config.model_type)

    def copied(name: str) -> bool:
        # A tied model's export may hold the head once more, as a copy of the table.
        return config.tie_embeddings and module.TENSORS.get(name) == "head"

    return {
        name: tensor
        for name, tensor in found.items()
        if not copied(name) and not name.endswith(module.IGNORED)
    }


def _folded(decoder: Decoder, path: hf_names.ParamPath) -> jax.Array:
    """A parameter's value; a projection's weight with its adapter in it."""
    owner = hf_names.submodule(decoder, path[:-1])
    if path[-1] == "weight" and isinstance(owner, Linear):
        return owner.merged_weight()
    return getattr(owner, path[-1])[...]


def _blank(
    config: ModelConfig, lora: LoraConfig | None, quantization: str, scan: bool, **options: Any
) -> Decoder:
    """A decoder of shapes, with nothing allocated."""
    if quantization and lora is None:
        raise ConfigError(
            f"quantization = {quantization!r} stores weights that cannot be tuned: add an adapter "
            "(config.model.lora.enable), or set it to ''"
        )

    def build() -> Decoder:
        decoder = Decoder(config, **options)
        if lora is not None:
            adapt(decoder, lora, hf_names.projection_names(config))
        if quantization:
            quantize_projections(decoder, quantization)
        if scan:
            stacking.stack_layers(decoder)
        return decoder

    return nnx.eval_shape(build)


def _model(
    decoder: Decoder,
    filled: dict[hf_names.ParamPath, nnx.Variable],
    config: ModelConfig,
    lora: LoraConfig | None,
) -> Model:
    decoder = nnx.merge(nnx.graphdef(decoder), nnx.from_flat_state(filled))
    return _taken_apart(decoder, config, lora)


def _taken_apart(decoder: Decoder, config: ModelConfig, lora: LoraConfig | None) -> Model:
    kind = nnx.Param if lora is None else nnx.LoRAParam
    graphdef, *states = nnx.split(decoder, kind, ...)
    trainable, frozen = states
    return Model(config=config, lora=lora, graphdef=graphdef, frozen=frozen, trainable=trainable)
