"""Invariances of one update: meshes, accumulation, packing, and what is (not) computed."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from eef_jax.errors import ConfigError
from eef_jax.sharding import make_mesh
from eef_jax.train import state as state_lib
from eef_jax.train.optim import OptimizerConfig, make_optimizer
from eef_jax.train.step import check_rows, make_step, put_batch
from tests.train import toy

# SGD at rate 1 without clipping: the change of a parameter is its gradient.
SGD = make_optimizer(
    OptimizerConfig(
        name="sgd", learning_rate=1.0, schedule="constant", warmup=0.0, b1=0.0, clip=0.0
    ),
    1,
)


def update(batches, *, mesh=None, lora=toy.LORA, accumulate=1, optimizer=SGD):
    """Loss and gradient of the first batch."""
    mesh = mesh or toy.one_device()
    model = toy.model(lora)
    state = state_lib.create(model, optimizer, mesh=mesh, seed=0)
    step = make_step(model, optimizer, mesh=mesh, accumulate=accumulate)
    batch, _ = next(batches.iterate())
    placed = put_batch(batch, mesh, rows=batches.rows)
    new, scalars = step(state, model.frozen, placed)
    grads = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), model.trainable, new.trainable)
    return float(scalars["loss"]), grads, new


def assert_close(left, right):
    # float32 sums in another order; gradients here are of the order of 0.01 to 1.
    np.testing.assert_allclose(left[0], right[0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), left[1], right[1]
    )


@functools.cache
def alone(lora=toy.LORA):
    """The reference: one device, one micro-batch."""
    return update(toy.batches(), lora=lora)


@pytest.mark.parametrize(
    ("sizes", "lora"),
    [
        ({"data": 8}, toy.LORA),
        ({"data": 2, "tensor": 4}, toy.LORA),
        ({"fsdp": 2, "tensor": 4}, None),
    ],
    ids=["lora 8x1", "lora 2x4", "full 2x4"],
)
def test_meshes_change_nothing(sizes, lora):
    assert_close(alone(lora), update(toy.batches(), lora=lora, mesh=make_mesh(sizes)))


def test_parameters_and_moments_lie_where_the_rules_say():
    mesh = make_mesh({"fsdp": 2, "tensor": 4})
    _, _, state = update(
        toy.batches(), mesh=mesh, lora=None, optimizer=make_optimizer(OptimizerConfig(), 1)
    )
    spec = state.trainable["layers"][0]["gate_proj"]["weight"].sharding.spec
    assert tuple(spec) == ("fsdp", "tensor")
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (16, 32)]
    assert moments and all(leaf.sharding.spec == spec for leaf in moments)


def test_accumulation_changes_nothing():
    assert_close(alone(), update(toy.batches(), accumulate=4))


def test_accumulation_over_a_mesh_changes_nothing():
    spread = update(toy.batches(), mesh=make_mesh({"data": 2, "tensor": 4}), accumulate=2)
    assert_close(alone(), spread)


def test_packed_equals_unpacked():
    packed = toy.batches(examples=toy.examples(8), length=64, rows=2, targets=48)
    unpacked = toy.batches(examples=toy.examples(8), length=16, rows=8)
    assert len(packed.plan(0).rows) == 2
    assert_close(update(packed), update(unpacked))


def test_only_the_adapter_changes_and_the_model_stays_usable():
    model = toy.model()
    before = jax.tree.map(np.asarray, model.trainable)
    _, grads, _ = alone()
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
    assert {type(leaf) for _, leaf in nnx.to_flat_state(grads)} == {nnx.LoRAParam}
    jax.tree.map(np.testing.assert_array_equal, before, model.trainable)


def test_an_empty_batch_changes_nothing():
    batches = toy.batches()
    zeroed = [dataclasses.replace(e, weights=np.zeros_like(e.weights)) for e in batches.examples]
    loss, grads, _ = update(toy.batches(examples=zeroed))
    assert loss == 0.0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_the_state_is_donated():
    model, mesh = toy.model(), toy.one_device()
    state = state_lib.create(model, SGD, mesh=mesh, seed=0)
    batch, _ = next(toy.batches().iterate())
    make_step(model, SGD, mesh=mesh)(state, model.frozen, put_batch(batch, mesh, rows=8))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.trainable))


def test_rows_that_do_not_spread_are_refused():
    with pytest.raises(
        ConfigError, match=r"8 rows .* 2 micro-batches over the 8 .* multiple of 16"
    ):
        check_rows(8, mesh=make_mesh({"data": 8}), accumulate=2)
