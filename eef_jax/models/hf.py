"""Hugging Face folders <-> models: `load`, `save`, and `init` for a model without a folder.

One table in each family file (`TENSORS`) drives both directions. Weights stream in tensor by
tensor, each going straight to its place on the mesh. Knows no tokenizer.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from eef_jax import sharding
from eef_jax.errors import DataError
from eef_jax.models.base import LoraConfig, Model, ModelConfig, family
from eef_jax.models.decoder import Decoder
from eef_jax.models.initial import initial

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def init(
    config: ModelConfig,
    *,
    lora: LoraConfig | None = None,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
    attention: str = "xla",
    mesh: Mesh | None = None,
    seed: int = 0,
) -> Model:
    """Make a model with random weights.

    Args:
        config: its shape.
        lora: the adapter, which alone is trainable then; None makes every parameter trainable.
        dtype: type the layers compute in.
        param_dtype: type the parameters are stored in.
        attention: name in the attention registry.
        mesh: where the parameters go; None leaves them on the default device.
        seed: makes the weights.
    """
    graphdef, variables = _abstract(
        config, lora=lora, dtype=dtype, param_dtype=param_dtype, attention=attention
    )
    filled = {
        path: _placed(variable, initial(path, variable.shape, seed), mesh)
        for path, variable in variables.items()
    }
    return _model(graphdef, filled, config, lora)


def load(
    path: epath.PathLike,
    *,
    lora: LoraConfig | None = None,
    dtype: DTypeLike = "float32",
    param_dtype: DTypeLike = "float32",
    attention: str = "xla",
    mesh: Mesh | None = None,
    seed: int = 0,
) -> Model:
    """Read a model from a Hugging Face folder (config.json and safetensors, sharded or not).

    Args:
        path: the folder.
        lora: as for `init`, and so are the next four.
        dtype: see `init`.
        param_dtype: see `init`.
        attention: see `init`.
        mesh: see `init`.
        seed: makes the adapter's first half (its second is 0: a fresh adapter changes nothing).

    Raises:
        ConfigError: when no family serves the folder's model_type.
        DataError: when a file is missing or unreadable, or tensors are missing, unexpected or of
            another shape than the config says: all of them are named at once.
    """
    folder = epath.Path(path)
    raw = _read_json(folder / "config.json")
    module = family(raw.get("model_type", "(none given)"))
    config: ModelConfig = module.config_from_hf(raw)
    graphdef, variables = _abstract(
        config, lora=lora, dtype=dtype, param_dtype=param_dtype, attention=attention
    )
    filled = {
        path: _placed(variable, initial(path, variable.shape, seed), mesh)
        for path, variable in variables.items()
        if isinstance(variable, nnx.LoRAParam)
    }
    with ExitStack() as stack:
        files = _open(folder, stack)
        names = _names(module, config)
        _check(folder, module, config, names, files, variables)
        for key, leaf_path in names.items():
            value = _oriented(files[key].get_tensor(key), leaf_path)
            filled[leaf_path] = _placed(variables[leaf_path], value, mesh)
    return _model(graphdef, filled, config, lora)


def save(model: Model, path: epath.PathLike, *, dtype: DTypeLike | None = None) -> None:
    """Write a model, its adapter folded into the base, as a folder that `transformers` loads.

    Args:
        model: what to write.
        path: the folder; made where it is missing. config.json is written last.
        dtype: type the tensors are stored in; None keeps the parameters' own.
    """
    module = family(model.config.model_type)
    variables = dict(nnx.to_flat_state(nnx.state(folded(model.decoder), nnx.Param)))
    tensors = {}
    for key, leaf_path in _names(module, model.config).items():
        value = np.asarray(jax.device_get(variables[leaf_path][...]))
        value = value if dtype is None else value.astype(jnp.dtype(dtype))
        tensors[key] = np.ascontiguousarray(_oriented(value, leaf_path))
    stored = next(iter(tensors.values())).dtype.name
    config = {**module.config_to_hf(model.config), "dtype": stored, "torch_dtype": stored}
    folder = epath.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    _replace(folder / WEIGHTS, data)
    _replace(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())


def folded(decoder: Decoder) -> Decoder:
    """A copy of a decoder whose adapters are folded into its weights (faster to sample from)."""
    graphdef, state = nnx.split(decoder)
    copy = nnx.merge(graphdef, jax.tree.map(lambda x: x, state))  # variables of its own
    for layer in copy.layers:
        for linear in layer.projections():
            linear.fold()
    return copy


def _abstract(
    config: ModelConfig, **options: Any
) -> tuple[nnx.GraphDef, dict[tuple[Any, ...], nnx.Variable]]:
    """A decoder's structure and its parameters' shapes, with nothing allocated."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, **options)))
    return graphdef, dict(nnx.to_flat_state(state))


def _model(
    graphdef: nnx.GraphDef,
    filled: dict[tuple[Any, ...], nnx.Variable],
    config: ModelConfig,
    lora: LoraConfig | None,
) -> Model:
    kind = nnx.Param if lora is None else nnx.LoRAParam
    decoder = nnx.merge(graphdef, nnx.from_flat_state(filled))
    graphdef, *states = nnx.split(decoder, kind, ...)
    trainable, frozen = states
    return Model(config=config, lora=lora, graphdef=graphdef, frozen=frozen, trainable=trainable)


def _names(module: ModuleType, config: ModelConfig) -> dict[str, tuple[Any, ...]]:
    """Hugging Face key -> path in the decoder's state, for every stored parameter."""
    names = {}
    for key, path in module.TENSORS.items():
        if path == "head" and config.tie_embeddings:
            continue
        for i in range(config.n_layers) if "{i}" in key else (0,):
            parts = path.format(i=i).split(".")
            names[key.format(i=i)] = tuple(int(p) if p.isdigit() else p for p in parts)
    return names


def _oriented(value: np.ndarray, path: tuple[Any, ...]) -> np.ndarray:
    """Swap [out, in] and [in, out]; vectors and the embedding table stay."""
    return value.T if value.ndim == 2 and path != ("embed",) else value


def _placed(variable: nnx.Variable, value: Any, mesh: Mesh | None) -> nnx.Variable:
    array = jnp.asarray(value, dtype=variable.dtype)
    filled = variable.replace(array)
    return filled if mesh is None else sharding.place(filled, mesh)


def _open(folder: epath.Path, stack: ExitStack) -> dict[str, Any]:
    """Open the folder's weight files; map each tensor's name to the open file that holds it."""
    if (folder / INDEX).exists():
        listed = _read_json(folder / INDEX).get("weight_map", {})
        files = sorted(set(listed.values()))
    else:
        files = [WEIGHTS]
    found = {}
    for name in files:
        if not (folder / name).exists():
            raise DataError(f"{folder / name} is missing: download or copy the whole model folder")
        try:
            handle = stack.enter_context(safetensors.safe_open(folder / name, framework="numpy"))
        except (safetensors.SafetensorError, OSError) as error:
            raise DataError(f"{folder / name} is damaged ({error}): copy it again") from error
        found.update(dict.fromkeys(handle.keys(), handle))
    return found


def _check(
    folder: epath.Path,
    module: ModuleType,
    config: ModelConfig,
    names: Mapping[str, tuple[Any, ...]],
    files: Mapping[str, Any],
    variables: Mapping[tuple[Any, ...], nnx.Variable],
) -> None:
    """Name everything that is wrong with the stored tensors in one error."""
    problems = [f"missing: {key}" for key in names if key not in files]
    problems += list(_unexpected(module, config, names, files))
    for key, path in names.items():
        if key not in files:
            continue
        got = tuple(files[key].get_slice(key).get_shape())
        shape = variables[path].shape
        expected = shape[::-1] if path != ("embed",) else shape
        if got != expected:
            problems.append(f"shape of {key}: got {list(got)}, expected {list(expected)}")
    if problems:
        lines = "\n  ".join(problems)
        raise DataError(
            f"{folder} does not hold the tensors its config.json describes:\n  {lines}\n"
            "copy the whole folder again, or mend config.json"
        )


def _unexpected(
    module: ModuleType, config: ModelConfig, names: Mapping[str, Any], files: Mapping[str, Any]
) -> Iterator[str]:
    for key in sorted(files):
        # A tied model's export may hold the head once more, as a copy of the table.
        copy = config.tie_embeddings and module.TENSORS.get(key) == "head"
        if key not in names and not copy and not key.endswith(module.IGNORED):
            yield f"unexpected: {key}"


def _read_json(file: epath.Path) -> dict[str, Any]:
    if not file.exists():
        raise DataError(f"{file} is missing: name a Hugging Face model folder")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}): copy it again") from error


def _replace(file: epath.Path, data: bytes) -> None:
    """Write a file whole: a reader sees the old one or the new one."""
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(data)
    partial.replace(file)
