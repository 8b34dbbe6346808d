"""The train state: one pytree that is donated to every step.

Frozen weights are not part of it: they are a separate argument of the step and are never saved.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from eef_jax import sharding
from eef_jax.models.model import Model


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """The state of a training run.

    Attributes:
        step: number of updates done.
        trainable: the adapter; all parameters in full fine-tuning.
        opt_state: moments and counters of the optimizer.
        key: key of dropout; step s uses `fold_in(key, s)`, so it never changes.
    """

    step: Int[Array, ""]
    trainable: nnx.State
    opt_state: optax.OptState
    key: Key[Array, ""]


def create(
    model: Model, optimizer: optax.GradientTransformation, *, mesh: Mesh, seed: int
) -> TrainState:
    """Create the state of a new run from a model's parameters, on the mesh.

    The parameters are copied: steps donate their state, and the model stays usable.
    """
    make = jax.jit(
        lambda trainable: _fresh(trainable, optimizer, seed),
        out_shardings=shardings(model, optimizer, mesh=mesh),
    )
    return make(sharding.place_tree(model.trainable, mesh))


def shardings(model: Model, optimizer: optax.GradientTransformation, *, mesh: Mesh) -> Any:
    """The sharding of each leaf of a run's state; moments are sharded like their parameters."""
    shapes = jax.eval_shape(lambda trainable: _fresh(trainable, optimizer, 0), model.trainable)
    return sharding.tree_shardings(shapes, mesh)


def abstract_state(
    model: Model, optimizer: optax.GradientTransformation, *, mesh: Mesh
) -> TrainState:
    """A run's state as shapes with shardings, to compile a step ahead of time."""
    shapes = jax.eval_shape(lambda trainable: _fresh(trainable, optimizer, 0), model.trainable)
    return sharding.abstract_tree(shapes, mesh)


def _fresh(trainable: nnx.State, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        # Without a copy the jitted function would return its argument's buffers, which the first
        # step donates.
        trainable=jax.tree.map(jnp.copy, trainable),
        opt_state=optimizer.init(trainable),
        key=jax.random.key(seed),
    )
