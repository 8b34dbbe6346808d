"""Checkpoints with Orbax: the trained parameters, and metadata that identify the frozen ones.

A checkpoint folder holds `trainable` (the adapter, or all parameters), JSON metadata, and a
manifest that is written last. A save of an unfinished run (`saves`) holds `training` instead: the
whole state. Frozen weights are never saved: the metadata have their folder and their hash, and
loading onto other weights is an error. All files are checked against the manifest before use.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from flax import nnx
from orbax.checkpoint.experimental import v1 as ocp

from eef_jax.config.sections import LoraConfig
from eef_jax.data.batches import Position
from eef_jax.errors import DataError
from eef_jax.storage import files, manifest
from eef_jax.train.state import TrainState

FORMAT = 1  # version of this layout

_TRAINABLE, _TRAINING = "trainable", "training"
_ARRAYS = ("*/d/*", "*/ocdbt.process_*")  # Orbax's files of values
_REMEDY = "move the folder of its stage away, so that the stage runs again"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a checkpoint says about itself, as JSON next to the arrays.

    Attributes:
        base: folder of the frozen weights (or how they were made).
        base_hash: `models.model.content_hash` of the frozen weights.
        param_dtype: type that they were stored in.
        quantization: how projections were quantized; "" if they were not.
        lora: the adapter's configuration; None for full tuning.
        config_hash: of the config that made it.
        step: number of updates done.
        position: position of the next batch; None when training is over.
        facts: anything else, as JSON values.
    """

    base: str
    base_hash: str
    param_dtype: str = "float32"
    quantization: str = ""
    lora: LoraConfig | None = None
    config_hash: str = ""
    step: int = 0
    position: Position | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def differences(self, other: "Metadata") -> list[str]:
        """What another checkpoint was made from otherwise: the base, or any of these facts."""
        mine = {"base": self.base_hash, "config": self.config_hash, **self.facts}
        its = {"base": other.base_hash, "config": other.config_hash, **other.facts}
        return [name for name, value in mine.items() if its.get(name) != value]


def save(
    path: epath.PathLike,
    trainable: nnx.State,
    metadata: Metadata,
) -> None:
    """Write a checkpoint, replacing one that is there. All processes call this together.

    Args:
        path: folder of the checkpoint.
        trainable: the trained parameters.
        metadata: what the checkpoint says about itself.

    Raises:
        DataError: it cannot be written.
    """
    folder, parts = files.absolute(path), {_TRAINABLE: named(trainable)}
    try:
        ocp.save_checkpointables(folder, parts, overwrite=True, custom_metadata=note(metadata))
    except Exception as error:  # Orbax and TensorStore raise many types
        raise DataError(
            f"checkpoint {folder} cannot be written ({str(error).partition(chr(10))[0]}): make "
            "room or mend that, and start the same command again"
        ) from error
    if jax.process_index() == 0:
        manifest.write(folder, {})


def training_parts(state: TrainState) -> dict[str, Any]:
    """What a save of an unfinished run stores, for Orbax."""
    return {_TRAINING: named(state)}


def note(metadata: Metadata) -> dict[str, Any]:
    """The metadata of a checkpoint as JSON values."""
    return {"format": FORMAT, **dataclasses.asdict(metadata)}


def read_metadata(path: epath.PathLike) -> Metadata:
    """Read what a checkpoint says about itself; its arrays are not looked at.

    Raises:
        DataError: when there is no checkpoint, or it is damaged or of another format.
    """
    folder = _found(path)
    manifest.verify(folder, skip=_ARRAYS, remedy=_REMEDY)
    return _metadata(folder)


def verified(path: epath.PathLike, *, remedy: str = "") -> Metadata:
    """Check all files of a checkpoint against its manifest, and read its metadata.

    Args:
        path: the checkpoint.
        remedy: the end of the error message; by default that its stage is to run again.

    Raises:
        DataError: when there is no checkpoint, or it is damaged or of another format.
    """
    folder = _found(path)
    manifest.verify(folder, remedy=remedy or _REMEDY)
    return _metadata(folder)


def _found(path: epath.PathLike) -> epath.Path:
    folder = files.absolute(path)
    if not folder.exists():
        raise DataError(
            f"there is no checkpoint at {folder}; name one that a tune stage finished, such as "
            "<workdir>/round_0/tune/checkpoint"
        )
    return folder


def _metadata(folder: epath.Path) -> Metadata:
    said = dict(
        _guarded(folder, lambda: ocp.checkpointables_metadata(folder).custom_metadata) or {}
    )
    if said.pop("format", None) != FORMAT:
        raise DataError(
            f"{folder} is not a checkpoint of this package's format {FORMAT}; make it again with "
            "this version"
        )
    if said["lora"]:
        said["lora"] = LoraConfig(**{**said["lora"], "targets": tuple(said["lora"]["targets"])})
    if said["position"]:
        said["position"] = Position(**said["position"])
    return Metadata(**said)


def load_trainable(
    path: epath.PathLike, like: nnx.State, *, base_hash: str
) -> tuple[nnx.State, Metadata]:
    """Read the parameters of a checkpoint, for evaluation or to train on.

    Args:
        path: the checkpoint.
        like: a model's `trainable`; its structure, shapes, types and sharding are those of the
            result.
        base_hash: hash of the frozen weights that the parameters will be used with.

    Raises:
        DataError: when the checkpoint is missing or damaged, belongs to other frozen weights, or
            has other parameters than `like`.
    """
    metadata = verified(path)
    if metadata.base_hash != base_hash:
        raise DataError(
            f"checkpoint {path} was tuned on the frozen weights {metadata.base} "
            f"(hash {metadata.base_hash[:12]}), the loaded ones have hash {base_hash[:12]}; load "
            "the base it names (config.model.path)"
        )
    return _load(files.absolute(path), _TRAINABLE, like), metadata


def load_training(path: epath.PathLike, like: TrainState) -> tuple[TrainState, Metadata]:
    """Read the state of an unfinished run from a save that was `verified`.

    Args:
        path: the save.
        like: a state of the same run (`train.state.abstract_state`); its structure, shapes, types
            and sharding are those of the result.

    Raises:
        DataError: the save is damaged, or has other parameters than `like`.
    """
    folder = files.absolute(path)
    return _load(folder, _TRAINING, like), _metadata(folder)


def named(tree: Any) -> dict[str, Any]:
    """Leaves by the names of their paths."""
    # Names instead of the tree itself: reading then needs none of our types or of optax's, and a
    # new version of either can read old checkpoints.
    leaves = jax.tree.leaves_with_path(tree)
    return {_name(at): _key_data(x) if _is_key(x) else x for at, x in leaves}


def _key_data(key: Any) -> Any:
    """The numbers of a random key, of an abstract one their shape."""
    if isinstance(key, jax.Array):
        return jax.random.key_data(key)
    data = jax.eval_shape(jax.random.key_data, key)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _load(folder: epath.Path, part: str, like: Any) -> Any:
    """Read one part of a checkpoint with the structure and the sharding of `like`."""
    stored = _guarded(folder, lambda: ocp.checkpointables_metadata(folder).metadata)
    if part not in stored:
        raise DataError(
            f"checkpoint {folder} holds {', '.join(sorted(stored))} but no {part!r}; a finished "
            "tune stage's holds 'trainable', a save of an unfinished one 'training'"
        )
    if stored[part] is None:  # Orbax logs why it cannot read a part, and goes on
        raise _damaged(folder, f"its part {part!r} cannot be read")
    wanted = named(like)
    _check_shapes(folder, wanted, stored[part])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), wanted
    )
    loaded = _guarded(folder, lambda: ocp.load_checkpointables(folder, {part: abstract}))[part]

    def filled(at: Any, leaf: Any) -> Any:
        value = loaded[_name(at)]
        return jax.random.wrap_key_data(value) if _is_key(leaf) else value

    return jax.tree.map_with_path(filled, like)


def _check_shapes(folder: epath.Path, wanted: dict[str, Any], stored: dict[str, Any]) -> None:
    """Check that the stored arrays have the expected names and shapes.

    Raises:
        DataError: they do not; with all differences.
    """
    # Orbax would cut or pad arrays of other shapes.
    problems = [f"missing: {name}" for name in wanted if name not in stored]
    problems += [f"unexpected: {name}" for name in stored if name not in wanted]
    problems += [
        f"shape of {name}: got {list(stored[name].shape)}, expected {list(leaf.shape)}"
        for name, leaf in wanted.items()
        if name in stored and tuple(stored[name].shape) != leaf.shape
    ]
    if problems:
        lines = "\n  ".join(problems)
        raise DataError(
            f"checkpoint {folder} holds other parameters than this model trains:\n  {lines}\n"
            "make the model with the adapter that its metadata describe (lora) and, to go on from "
            "a save of an unfinished training, with its config.model.scan_layers; or tune again"
        )


def _guarded(folder: epath.Path, call: Any) -> Any:
    """Call a function that reads a checkpoint.

    Raises:
        DataError: the folder is damaged.
    """
    try:
        return call()
    except DataError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many types for a damaged folder
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error


def _damaged(folder: epath.Path, why: str) -> DataError:
    return DataError(f"checkpoint {folder} is damaged or unfinished ({why}); {_REMEDY}")
