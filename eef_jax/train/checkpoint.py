"""Checkpoints with Orbax: the trained parameters, and metadata that identify the frozen ones.

A checkpoint folder holds `trainable` (the adapter, or all parameters), optionally `training` (step,
optimizer state, key: what an interrupted run needs to continue) and JSON metadata. Frozen weights
are never saved: the metadata have their folder and their hash, and loading onto other weights is an
error. Orbax writes a folder atomically: an interrupted save leaves no checkpoint.
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
from eef_jax.storage import files
from eef_jax.train.state import TrainState

FORMAT = 1  # version of this layout


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
        facts: anything else for the report (scores, seed, commit); JSON values only.
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


def save(
    path: epath.PathLike,
    trainable: nnx.State,
    metadata: Metadata,
    *,
    training: TrainState | None = None,
) -> None:
    """Write a checkpoint, replacing one that is there.

    Args:
        path: folder of the checkpoint.
        trainable: the trained parameters.
        metadata: what the checkpoint says about itself.
        training: state of an unfinished run, so that it can continue exactly; None if it is over.
    """
    parts = {"trainable": _named(trainable)}
    if training is not None:
        parts["training"] = _named(training)
    note = {"format": FORMAT, **dataclasses.asdict(metadata)}
    ocp.save_checkpointables(files.absolute(path), parts, overwrite=True, custom_metadata=note)


def read_metadata(path: epath.PathLike) -> Metadata:
    """Read what a checkpoint says about itself, without its arrays.

    Raises:
        DataError: when there is no checkpoint, or it is damaged or of another format.
    """
    folder = files.absolute(path)
    if not folder.exists():
        raise DataError(
            f"there is no checkpoint at {folder}; name one that a tune stage finished, such as "
            "<workdir>/round_0/tune/checkpoint"
        )
    note = dict(
        _guarded(folder, lambda: ocp.checkpointables_metadata(folder).custom_metadata) or {}
    )
    if note.pop("format", None) != FORMAT:
        raise DataError(
            f"{folder} is not a checkpoint of this package's format {FORMAT}; make it again with "
            "this version"
        )
    if note["lora"]:
        note["lora"] = LoraConfig(**{**note["lora"], "targets": tuple(note["lora"]["targets"])})
    if note["position"]:
        note["position"] = Position(**note["position"])
    return Metadata(**note)


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
    metadata = _checked(path, base_hash)
    return _load(files.absolute(path), "trainable", like), metadata


def load_training(
    path: epath.PathLike, like: TrainState, *, base_hash: str
) -> tuple[TrainState, Metadata]:
    """Read the state of an interrupted run, which then continues bit for bit.

    Args:
        path: a checkpoint that was saved with `training`.
        like: a state of the same run (`train.state.create`); its structure, shapes, types and
            sharding are those of the result.
        base_hash: hash of the frozen weights.

    Raises:
        DataError: the checkpoint is missing or damaged, belongs to other frozen weights, has other
            parameters than `like`, or holds no training state.
    """
    metadata = _checked(path, base_hash)
    return _load(files.absolute(path), "training", like), metadata


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by the names of their paths."""
    # Names instead of the tree itself: reading then needs none of our types or of optax's, and a
    # new version of either can read old checkpoints.
    leaves = jax.tree.leaves_with_path(tree)
    return {_name(at): jax.random.key_data(x) if _is_key(x) else x for at, x in leaves}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _checked(path: epath.PathLike, base_hash: str) -> Metadata:
    metadata = read_metadata(path)
    if metadata.base_hash != base_hash:
        raise DataError(
            f"checkpoint {path} was tuned on the frozen weights {metadata.base} "
            f"(hash {metadata.base_hash[:12]}), the loaded ones have hash {base_hash[:12]}; load "
            "the base it names (config.model.path)"
        )
    return metadata


def _load(folder: epath.Path, part: str, like: Any) -> Any:
    """Read one part of a checkpoint with the structure and the sharding of `like`."""
    stored = _guarded(folder, lambda: ocp.checkpointables_metadata(folder).metadata)
    if part not in stored:
        raise DataError(
            f"checkpoint {folder} holds {', '.join(sorted(stored))} but no {part!r}; it was saved "
            "at the end of a stage, not in the middle of training"
        )
    if stored[part] is None:  # Orbax logs why it cannot read a part, and goes on
        raise _damaged(folder, f"its part {part!r} cannot be read")
    wanted = _named(like)
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
            "make the model with the adapter that its metadata describe (lora), or tune again"
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
    return DataError(
        f"checkpoint {folder} is damaged or unfinished ({why}); move the folder of its stage away "
        "to run the stage again"
    )
