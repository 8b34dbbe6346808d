"""One update: forward, backward and optimizer, compiled once with shardings over the mesh.

Pure: (state, frozen, batch) -> (state, scalars). Epochs, logging and files are in `loop`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Key, Shaped

from eef_jax import sharding
from eef_jax.errors import ConfigError
from eef_jax.models.model import Model, merge
from eef_jax.train import state as state_lib
from eef_jax.train.losses.sft import weighted_nll
from eef_jax.train.state import TrainState

CHUNK = 128  # loss positions of a row whose logits exist at a time

# The arrays of `data.batches.Batches` by their names, on the devices.
DeviceBatch = dict[str, Shaped[Array, "b _"]]
Scalars = dict[str, Float32[Array, ""]]
Step = Callable[[TrainState, nnx.State, DeviceBatch], tuple[TrainState, Scalars]]


def make_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    accumulation_steps: int = 1,
    chunk: int = CHUNK,
) -> Step:
    """Make the update step, which compiles once.

    The loss is the sum of weighted losses over the sum of weights of the whole global batch,
    however it is split over devices and micro-batches, so neither changes the update.
    Without an adapter all parameters are trained; with one, no gradient of the base is computed.

    Args:
        model: its structure and shardings are used; its arrays are not kept.
        optimizer: made by `train.optim.make_optimizer`.
        mesh: the devices.
        accumulation_steps: number of micro-batches that a batch is split into; divides its rows.
        chunk: loss positions of a row whose logits exist at a time.

    Returns:
        A function (state, frozen, batch) -> (state, scalars). The state is donated. Scalars: `loss`
        (nats per unit of weight), `weight` (sum of weights), `grad_norm` (before clipping).
    """
    jitted = _jitted(
        model, optimizer, mesh=mesh, accumulation_steps=accumulation_steps, chunk=chunk
    )

    def step(
        state: TrainState, frozen: nnx.State, batch: DeviceBatch
    ) -> tuple[TrainState, Scalars]:
        with jax.set_mesh(mesh):  # the decoder shards its activations over it
            return jitted(state, frozen, batch)

    return step


def _jitted(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    accumulation_steps: int,
    chunk: int,
) -> Any:
    """The jitted update, with shardings for its arguments and results."""
    loss_sum = _loss_sum(model, chunk)

    def update(
        state: TrainState, frozen: nnx.State, batch: DeviceBatch
    ) -> tuple[TrainState, Scalars]:
        def loss_and_grads(part: DeviceBatch, keys: Key[Array, " b"]) -> tuple[Any, Any]:
            loss = jax.value_and_grad(loss_sum)(state.trainable, frozen, part, keys)
            return sharding.constrain_tree(loss)

        weight = jnp.sum(batch["weights"])
        # A key for each row: what is dropped in it does not depend on the micro-batches.
        key = jax.random.fold_in(state.key, state.step)
        keys = jax.random.split(key, batch["tokens"].shape[0])
        total, grads = _accumulate(loss_and_grads, batch, keys, accumulation_steps)
        # A batch without a weight (padding rows only) updates with gradients of 0, not with nan.
        scale = 1.0 / jnp.where(weight == 0.0, 1.0, weight)
        grads = jax.tree.map(lambda grad: grad.astype(jnp.float32) * scale, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        new = TrainState(
            step=state.step + 1,
            trainable=optax.apply_updates(state.trainable, updates),
            opt_state=opt_state,
            key=state.key,
        )
        scalars = {"loss": total * scale, "weight": weight, "grad_norm": optax.tree.norm(grads)}
        return new, scalars

    replicated = NamedSharding(mesh, PartitionSpec())
    state_shardings = state_lib.shardings(model, optimizer, mesh=mesh)
    frozen_shardings = sharding.tree_shardings(model.frozen, mesh)
    return jax.jit(
        update,
        in_shardings=(state_shardings, frozen_shardings, batch_shardings(mesh)),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
    )


def _loss_sum(model: Model, chunk: int) -> Callable[..., Float32[Array, ""]]:
    """The sum of weighted losses of a batch, as a function of the trainable parameters."""
    graphdef = model.graphdef

    def loss_sum(
        trainable: nnx.State, frozen: nnx.State, batch: DeviceBatch, keys: Key[Array, " b"]
    ) -> Float32[Array, ""]:
        decoder = merge(graphdef, frozen, trainable)
        rows = (batch["tokens"], batch["positions"], batch["segment_ids"])
        hidden = decoder(*rows, dropout_keys=keys)
        return weighted_nll(
            decoder.logits_fn(hidden.dtype),
            hidden,
            batch["tokens"],
            batch["weights"],
            batch["loss_positions"],
            chunk=chunk,
        )

    return loss_sum


def lower(
    model: Model,
    optimizer: optax.GradientTransformation,
    batch: Mapping[str, Shaped[np.ndarray, "b _"]],
    *,
    mesh: Mesh,
    accumulation_steps: int = 1,
    chunk: int = CHUNK,
) -> jax.stages.Lowered:
    """Lower the step for batches of these shapes, to compile it ahead of time.

    Args:
        model: may be abstract (`models.build.abstract_model`).
        optimizer: made by `train.optim.make_optimizer`.
        batch: a whole global batch, such as `data.batches.empty_batch`.
        mesh: the devices, which may be described only (no TPU attached).
        accumulation_steps: number of micro-batches that a batch is split into.
        chunk: loss positions of a row whose logits exist at a time.
    """
    shardings = batch_shardings(mesh)
    like = {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=shardings[name])
        for name, value in batch.items()
    }
    state = state_lib.abstract_state(model, optimizer, mesh=mesh)
    frozen = sharding.abstract_tree(model.frozen, mesh)
    jitted = _jitted(
        model, optimizer, mesh=mesh, accumulation_steps=accumulation_steps, chunk=chunk
    )
    with jax.set_mesh(mesh):
        return jitted.lower(state, frozen, like)


def batch_shardings(mesh: Mesh) -> dict[str, NamedSharding]:
    """The shardings of a batch's arrays."""
    # `loss_positions` number the columns of a row, so they are not sharded along its tokens.
    tokens = sharding.batch_sharding(mesh)
    rows = NamedSharding(mesh, PartitionSpec(sharding.RULES["batch"]))
    names = ("tokens", "positions", "segment_ids", "weights")
    return dict.fromkeys(names, tokens) | {"loss_positions": rows}


def put_batch(
    batch: Mapping[str, Shaped[np.ndarray, "b _"]], mesh: Mesh, *, batch_size: int
) -> DeviceBatch:
    """Move this process's part of a global batch of `batch_size` rows to the devices."""
    shardings = batch_shardings(mesh)
    return {
        name: jax.make_array_from_process_local_data(
            shardings[name], value, (batch_size, *value.shape[1:])
        )
        for name, value in batch.items()
    }


def check_batch_size(batch_size: int, *, mesh: Mesh, accumulation_steps: int) -> None:
    """Check that each micro-batch can be sharded evenly over the devices.

    Raises:
        ConfigError: it cannot.
    """
    parts = accumulation_steps * data_parallel_size(mesh)
    if batch_size % parts:
        raise ConfigError(
            f"a batch of {batch_size} rows does not split into {accumulation_steps} micro-batches "
            f"over the {data_parallel_size(mesh)} data devices; set config.train.batch_size to a "
            f"multiple of {parts}"
        )


def data_parallel_size(mesh: Mesh) -> int:
    """Number of devices that rows are sharded over."""
    return math.prod(mesh.shape[axis] for axis in sharding.RULES["batch"])


def _accumulate(
    value_and_grad: Callable[[DeviceBatch, Key[Array, " _"]], tuple[Any, Any]],
    batch: DeviceBatch,
    keys: Key[Array, " b"],
    accumulation_steps: int,
) -> tuple[Any, Any]:
    """Sum losses and gradients over micro-batches."""
    if accumulation_steps == 1:
        return value_and_grad(batch, keys)
    # Micro-batch j holds the rows r = j modulo `accumulation_steps`, so that each device's rows
    # stay on it.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, accumulation_steps, *x.shape[1:]).swapaxes(0, 1), (batch, keys)
    )

    def add(total: Any, part: tuple[DeviceBatch, Key[Array, " _"]]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, value_and_grad(*part)), None

    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(value_and_grad, *first)
    )
    return jax.lax.scan(add, zeros, parts)[0]
