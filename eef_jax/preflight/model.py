"""Whether model, tokenizer, sequences and devices fit together, by shapes and headers alone."""

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from eef_jax import sharding
from eef_jax.analysis import flops, micro_batch, programs
from eef_jax.config.numerics import FLAG
from eef_jax.config.sections import EngineConfig, MeshSection
from eef_jax.engine import config as engine_lib
from eef_jax.errors import ConfigError
from eef_jax.models import memory as memory_lib
from eef_jax.models.model import Model
from eef_jax.preflight.start import Start
from eef_jax.storage import files
from eef_jax.storage.stages import kind_of
from eef_jax.train import state as state_lib
from eef_jax.train import step as step_lib
from eef_jax.train.optim import make_optimizer
from eef_jax.train.saves import KEPT
from eef_jax.types import Message

_GIB = 2**30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes per device that a run holds; temporary buffers of programs are not counted.

    Attributes:
        training: parameters as training holds them.
        optimizer: the optimizer's state, and the trained parameters that it updates.
        rollouts: the second copy of the parameters, for rollouts; 0 where one serves both.
        cache: the engine's pages.
        limit: what a device has; infinite where nothing says how much.
    """

    training: int
    optimizer: int
    rollouts: int
    cache: int
    limit: float

    @property
    def total(self) -> int:
        """The most at one time: the cache is freed while training runs."""
        return self.training + self.rollouts + max(self.optimizer, self.cache)


def find_folder(start: Start) -> epath.Path:
    """Find the model's folder.

    Raises:
        ConfigError: there is none of that name, or the config names none.
        DataError: it cannot be downloaded from the hub.
    """
    folder = files.to_path(start.placement.path)
    if not folder.is_dir():
        raise ConfigError(
            f"config.model.path is {start.config.model.path!r}, which is not a folder: "
            "expected a Hugging Face folder, with config.json, weights and a tokenizer, or a model "
            "on the hub (ORG/NAME)"
        )
    return folder


def check_files(start: Start) -> None:
    """Check the model's folder, and the adapter's, by config files and headers.

    Raises:
        ConfigError: no family serves the model, or the adapter does not fit it.
        DataError: a file is missing or damaged, or holds other tensors than config.json says.
    """
    start.placement.check_files()


def check_vocabulary(start: Start) -> None:
    """Check that the model has a row for each id that a conversation may contain.

    Raises:
        ConfigError: it has not.
    """
    start.placement.chat.check_vocabulary(start.placement.shape.vocab_size)


def check_context(start: Start) -> None:
    """Check that the model has a position for each token of the longest conversation.

    Raises:
        ConfigError: it has not.
    """
    engine_lib.check_positions(start.config.engine, start.placement.shape)


def check_rollout_mesh(start: Start) -> None:
    """Check that the rollouts' mesh fits the devices of one process.

    Raises:
        ConfigError: it does not.
    """
    rollout_mesh(start)


def check_batch(start: Start) -> None:
    """Check that a batch's rows spread over the devices, and over micro-batches.

    Raises:
        ConfigError: they do not.
    """
    train, mesh = start.config.train, training_mesh(start)
    step_lib.check_batch_size(train.batch_size, mesh=mesh, accumulation_steps=1)
    if train.micro_batch != "auto":  # that is decided by compiling, when training starts
        micro_batch.accumulation_steps(
            train.micro_batch,
            abstract(start),
            mesh=mesh,
            batch_size=train.batch_size,
            seq_len=train.seq_len,
            max_loss_positions=train.seq_len,
            optimizer=train.optimizer,
        )


def check_memory(start: Start) -> None:
    """Check that parameters, optimizer and cache fit a device.

    Raises:
        ConfigError: they do not; with the numbers.
    """
    held = memory(start)
    if held.total > held.limit:
        raise ConfigError(
            f"the run holds {held.total / _GIB:.2f} GiB on a device of {held.limit / _GIB:.2f} GiB "
            f"(parameters {held.training / _GIB:.2f}, optimizer {held.optimizer / _GIB:.2f}, the "
            f"rollouts' copy {held.rollouts / _GIB:.2f}, cache {held.cache / _GIB:.2f}): take more "
            "devices (config.mesh.fsdp), config.model.param_dtype=bfloat16, "
            "config.model.quantization, or a smaller config.engine.num_pages"
        )


def check_disk(start: Start) -> None:
    """Check that the checkpoints fit the disk of the work folder.

    Raises:
        ConfigError: they do not.
    """
    free = free_disk_bytes(start.root)
    if free is not None and (needed := checkpoint_bytes(start)) > free:
        raise ConfigError(
            f"the checkpoints of this run are {needed / _GIB:.2f} GiB, but {free / _GIB:.2f} GiB "
            f"are free where {start.root} is: name a --workdir on a larger disk or on gs://"
        )


def check_template(start: Start) -> None:
    """Render the beginning of a conversation, and two turns of it, with the chat template.

    Raises:
        PolicyError: the template refuses it, or changes earlier turns.
    """
    chat = start.placement.chat
    for messages in start.openings.messages.values():
        turn = (Message(role="assistant", content="x"), Message(role="user", content="y"))
        chat.prompt((*messages, *turn))


def check_lengths(start: Start) -> None:
    """Check that the first observations leave room: in the engine's context, in training's rows.

    Raises:
        ConfigError: a task that was tried has no room for one message.
    """
    chat, config, kinds = start.placement.chat, start.config, start.schedule.kinds()
    lengths = {task: len(chat.prompt(m)) for task, m in start.openings.messages.items()}
    if not lengths:
        return
    longest = max(lengths, key=lambda task: lengths[task])
    new = [
        getattr(config, name).max_new_tokens for name in ("explore", "evaluate") if name in kinds
    ]
    fields = {
        "engine.max_context": (config.engine.max_context, lengths[longest] + max(new, default=0)),
        "train.seq_len": (config.train.seq_len, lengths[longest] + 1),
    }
    used = {"engine.max_context": bool(new), "train.seq_len": bool(kinds & {"select", "tune"})}
    short = {name: pair for name, pair in fields.items() if used[name] and pair[0] < pair[1]}
    if short:
        told = " and ".join(
            f"config.{name} to {need} or more (it is {size})"
            for name, (size, need) in short.items()
        )
        raise ConfigError(
            f"prompt and first observation of {longest} are {lengths[longest]} tokens, the longest "
            f"of {len(lengths)} tasks that were tried, which leaves no room for one message: raise "
            f"{told}, or choose a shorter config.env.prompt"
        )


# Meshes of planned devices (`sharding.plan_mesh`) have a shape, which is all that is asked of them.


def training_mesh(start: Start) -> Any:
    """The mesh of training on the devices of the run, planned or here."""
    return _mesh(start, start.config.mesh, start.devices or jax.device_count())


def rollout_mesh(start: Start) -> Any:
    """The mesh of rollouts on the devices of one process."""
    planned = start.devices // start.processes
    return _mesh(start, start.config.rollout_mesh, planned or jax.local_device_count())


def abstract(start: Start) -> Model:
    """The model's shapes, as training lays them out."""
    return start.placement.abstract(scan_layers=start.config.model.scan_layers)


def memory(start: Start) -> Memory:
    """What the run holds on a device."""
    mesh, local = training_mesh(start), rollout_mesh(start)
    model = abstract(start)
    transform = make_optimizer(start.config.train.optimizer, 1000)
    state = state_lib.abstract_state(model, transform, mesh=mesh)
    alone = start.processes == 1 and jax.process_count() == 1
    shared = alone and local.shape == mesh.shape
    plain = start.placement.abstract(scan_layers=False)
    here = jax.local_devices()[0]
    return Memory(
        training=memory_lib.bytes_per_device(model, mesh),
        optimizer=_sharded_bytes((state.trainable, state.opt_state)),
        rollouts=0 if shared else memory_lib.bytes_per_device(plain, local),
        cache=programs.cache_bytes(plain, mesh=local, engine_config=resolved_engine(start)),
        limit=math.inf if start.devices else micro_batch.memory_limit(here),
    )


def resolved_engine(start: Start) -> EngineConfig:
    """The engine's sizes; for planned devices the most that `num_pages=0` may take."""
    config, shape = start.config.engine, start.placement.shape
    if not start.devices:
        dtype, here = start.config.model.dtype, jax.local_devices()[0]
        with _recorded(start):
            return engine_lib.resolve_config(config, shape, dtype=dtype, device=here)
    rows = config.max_num_seqs or engine_lib.MAX_NUM_SEQS[""]
    return dataclasses.replace(
        config,
        attention=config.attention or "gathered",
        max_num_seqs=rows,
        num_pages=config.num_pages or rows * config.pages_per_seq,
    )


def parameter_counts(start: Start) -> tuple[int, int]:
    """Number of parameters in all, adapter included, and of those that are trained."""
    model = abstract(start)
    trained = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(model.trainable))
    return flops.count_parameters(model), trained


def checkpoint_bytes(start: Start) -> int:
    """Bytes of the checkpoints of the stages to run, and of one unfinished training's saves."""
    train, trainable = start.config.train, abstract(start).trainable
    stages = sum(kind_of(stage) == "tune" for stage in start.schedule.todo)
    saves = 0
    if stages and (train.save_every_s or train.save_every_steps):
        opt_state = jax.eval_shape(make_optimizer(train.optimizer, 1000).init, trainable)
        # A new save is complete before the oldest one goes.
        saves = (KEPT + 1) * (_bytes(trainable) + _bytes(opt_state))
    return stages * _bytes(trainable) + saves


def _bytes(tree: object) -> int:
    """Bytes of a tree of shapes, on all devices together."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def free_disk_bytes(root: epath.Path | None) -> int | None:
    """Bytes that are free on a folder's disk; None in an object store."""
    if root is None or not files.is_local(root):
        return None
    there = next(
        folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists()
    )
    return shutil.disk_usage(there).free


def _mesh(start: Start, section: MeshSection, count: int) -> Any:
    with _recorded(start):
        return sharding.plan_mesh(dataclasses.asdict(section), count)


@contextlib.contextmanager
def _recorded(start: Start) -> Iterator[None]:
    """Where sizes do not fit these devices, say that the run has recorded them."""
    try:
        yield
    except ConfigError as error:
        if not start.numerics.values:
            raise
        raise ConfigError(
            f"{error}; the run was begun with these sizes, which each start takes again: go on "
            f"with devices like those, or add {FLAG} to choose anew"
        ) from error


def _sharded_bytes(tree: object) -> int:
    """Bytes on one device of a tree of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )
