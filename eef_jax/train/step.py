"""One update: forward, backward and optimizer, compiled once with shardings over the mesh.

Pure: (state, frozen, batch) -> (state, scalars). Epochs, logging and files are in `loop`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
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
from eef_jax.train.losses import base as losses
from eef_jax.train.losses.base import Loss
from eef_jax.train.losses.sft import Sft
from eef_jax.train.state import TrainState

CHUNK = 128  # loss positions of a row whose logits exist at a time

# The arrays of `data.batches.Batches` by their names, on the devices.
DeviceBatch = dict[str, Shaped[Array, "b _"]]
Scalars = dict[str, Float32[Array, ""]]
Step = Callable[[TrainState, nnx.State, DeviceBatch], tuple[TrainState, Scalars]]
Scorer = Callable[[nnx.State, nnx.State, DeviceBatch], Float32[Array, "b n"]]

SFT = Sft()


def make_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    loss: Loss = SFT,
    accumulation_steps: int = 1,
    chunk: int = CHUNK,
) -> Step:
    """Make the update step, which compiles once.

    The loss's numerator and denominator are sums over the whole global batch, however it is split
    over devices and micro-batches, so neither changes the update.
    Without an adapter all parameters are trained; with one, no gradient of the base is computed.

    Args:
        model: its structure and shardings are used; its arrays are not kept.
        optimizer: made by `train.optim.make_optimizer`.
        mesh: the devices.
        loss: what is minimized; batches have its columns.
        accumulation_steps: number of micro-batches that a batch is split into; divides its rows.
        chunk: loss positions of a row whose logits exist at a time.

    Returns:
        A function (state, frozen, batch) -> (state, scalars). The state is donated. Scalars: `loss`
        (of SFT: nats per unit of weight), `weight` (the denominator; of SFT the sum of weights),
        `grad_norm` (before clipping), and the loss's own metrics.
    """
    jitted = _jitted(
        model, optimizer, loss, mesh=mesh, accumulation_steps=accumulation_steps, chunk=chunk
    )

    def step(
        state: TrainState, frozen: nnx.State, batch: DeviceBatch
    ) -> tuple[TrainState, Scalars]:
        with jax.set_mesh(mesh):  # the decoder shards its activations over it
            return jitted(state, frozen, batch)

    return step


def make_scorer(
    model: Model,
    *,
    mesh: Mesh,
    loss: Loss,
    accumulation_steps: int = 1,
    chunk: int = CHUNK,
) -> Scorer:
    """Make the forward pass of training alone: (trainable, frozen, batch) -> log-probabilities.

    Args:
        model: its structure and shardings are used; its arrays are not kept.
        mesh: the devices.
        loss: decides the temperatures of tokens.
        accumulation_steps: number of micro-batches, as in the training to compare with.
        chunk: loss positions of a row whose logits exist at a time.

    Returns:
        A function whose result, on all processes, is the log-probability of each loss position of
        the global batch, in nats, without dropout.
    """
    forward = _forward(model, loss, chunk)

    def score(trainable: nnx.State, frozen: nnx.State, batch: DeviceBatch) -> Float32[Array, "b n"]:
        # Loops where training loops, so that both compute the same bits.
        if accumulation_steps == 1:
            return forward(trainable, frozen, batch, None)
        parts = _split(batch, accumulation_steps)
        logps = jax.lax.map(lambda part: forward(trainable, frozen, part, None), parts)
        return logps.swapaxes(0, 1).reshape(-1, logps.shape[-1])

    shardings = [sharding.tree_shardings(x, mesh) for x in (model.trainable, model.frozen)]
    jitted = jax.jit(
        score,
        in_shardings=(*shardings, batch_shardings(mesh, scored_columns(loss))),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )

    def on_mesh(
        trainable: nnx.State, frozen: nnx.State, batch: DeviceBatch
    ) -> Float32[Array, "b n"]:
        with jax.set_mesh(mesh):
            return jitted(trainable, frozen, batch)

    return on_mesh


def scored_columns(loss: Loss) -> tuple[str, ...]:
    """The columns that a batch to be scored has: all but the one that scoring makes."""
    return tuple(name for name in loss.columns if name != losses.REFERENCE)


def _jitted(
    model: Model,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    mesh: Mesh,
    accumulation_steps: int,
    chunk: int,
) -> Any:
    """The jitted update, with shardings for its arguments and results."""
    numerator = _numerator(model, loss, chunk)

    def update(
        state: TrainState, frozen: nnx.State, batch: DeviceBatch
    ) -> tuple[TrainState, Scalars]:
        def loss_and_grads(part: DeviceBatch, keys: Key[Array, " b"]) -> tuple[Any, Any]:
            value_and_grad = jax.value_and_grad(numerator, has_aux=True)
            return sharding.constrain_tree(value_and_grad(state.trainable, frozen, part, keys))

        weight = loss.denominator(losses.gather(batch, loss.columns))
        # A key for each row: what is dropped in it does not depend on the micro-batches.
        key = jax.random.fold_in(state.key, state.step)
        keys = jax.random.split(key, batch["tokens"].shape[0])
        (total, metrics), grads = _accumulate(loss_and_grads, batch, keys, accumulation_steps)
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
        means = {name: x / jnp.maximum(count, 1.0) for name, (x, count) in metrics.items()}
        return new, scalars | means

    replicated = NamedSharding(mesh, PartitionSpec())
    state_shardings = state_lib.shardings(model, optimizer, mesh=mesh)
    frozen_shardings = sharding.tree_shardings(model.frozen, mesh)
    return jax.jit(
        update,
        in_shardings=(state_shardings, frozen_shardings, batch_shardings(mesh, loss.columns)),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
    )


def _numerator(model: Model, loss: Loss, chunk: int) -> Callable[..., Any]:
    """The loss's numerator and metrics, as a function of the trainable parameters."""
    forward = _forward(model, loss, chunk)

    def numerator(
        trainable: nnx.State, frozen: nnx.State, batch: DeviceBatch, keys: Key[Array, " b"]
    ) -> tuple[Float32[Array, ""], losses.Metrics]:
        logps = forward(trainable, frozen, batch, keys)
        return loss.numerator(logps, losses.gather(batch, loss.columns))

    return numerator


def _forward(model: Model, loss: Loss, chunk: int) -> Callable[..., Any]:
    """The log-probabilities of a batch's loss positions."""
    graphdef, columns = model.graphdef, scored_columns(loss)

    def forward(
        trainable: nnx.State, frozen: nnx.State, batch: DeviceBatch, keys: Key[Array, " b"] | None
    ) -> Float32[Array, "b n"]:
        decoder = merge(graphdef, frozen, trainable)
        rows = (batch["tokens"], batch["positions"], batch["segment_ids"])
        hidden = decoder(*rows, dropout_keys=keys)
        return losses.log_probs(
            decoder.logits_fn(hidden.dtype),
            hidden,
            batch["tokens"],
            batch["loss_positions"],
            loss.temperatures(losses.gather(batch, columns)),
            chunk=chunk,
        )

    return forward


def lower(
    model: Model,
    optimizer: optax.GradientTransformation,
    batch: Mapping[str, Shaped[np.ndarray, "b _"]],
    *,
    mesh: Mesh,
    loss: Loss = SFT,
    accumulation_steps: int = 1,
    chunk: int = CHUNK,
) -> jax.stages.Lowered:
    """Lower the step for batches of these shapes, to compile it ahead of time.

    Args:
        model: may be abstract (`models.build.abstract_model`).
        optimizer: made by `train.optim.make_optimizer`.
        batch: a whole global batch, such as `data.batches.empty_batch`.
        mesh: the devices, which may be described only (no TPU attached).
        loss: what is minimized; the batch has its columns.
        accumulation_steps: number of micro-batches that a batch is split into.
        chunk: loss positions of a row whose logits exist at a time.
    """
    shardings = batch_shardings(mesh, loss.columns)
    like = {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=shardings[name])
        for name, value in batch.items()
    }
    state = state_lib.abstract_state(model, optimizer, mesh=mesh)
    frozen = sharding.abstract_tree(model.frozen, mesh)
    jitted = _jitted(
        model, optimizer, loss, mesh=mesh, accumulation_steps=accumulation_steps, chunk=chunk
    )
    with jax.set_mesh(mesh):
        return jitted.lower(state, frozen, like)


def batch_shardings(mesh: Mesh, columns: Sequence[str] = ()) -> dict[str, NamedSharding]:
    """The shardings of the arrays of a batch with these columns."""
    # `loss_positions` number the columns of a row, so they are not sharded along its tokens.
    tokens = sharding.batch_sharding(mesh)
    rows = NamedSharding(mesh, PartitionSpec(sharding.RULES["batch"]))
    names = ("tokens", "positions", "segment_ids", "weights", *columns)
    return dict.fromkeys(names, tokens) | {"loss_positions": rows}


def put_batch(
    batch: Mapping[str, Shaped[np.ndarray, "b _"]], mesh: Mesh, *, batch_size: int
) -> DeviceBatch:
    """Move this process's part of a global batch of `batch_size` rows to the devices."""
    shardings = batch_shardings(mesh, tuple(batch))
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
    parts = _split((batch, keys), accumulation_steps)

    def add(total: Any, part: tuple[DeviceBatch, Key[Array, " _"]]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, value_and_grad(*part)), None

    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(value_and_grad, *first)
    )
    return jax.lax.scan(add, zeros, parts)[0]


def _split(tree: Any, accumulation_steps: int) -> Any:
    """The micro-batches of arrays whose first axis are a batch's rows."""
    # Micro-batch j holds the rows r = j modulo `accumulation_steps`, so that each device's rows
    # stay on it.
    return jax.tree.map(
        lambda x: x.reshape(-1, accumulation_steps, *x.shape[1:]).swapaxes(0, 1), tree
    )
