"""Invariances of one update: meshes, accumulation, packing, and what is (not) computed."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from eef_jax import sharding
from eef_jax.analysis import hlo
from eef_jax.config.sections import OptimizerConfig
from eef_jax.data.batches import empty_batch
from eef_jax.errors import ConfigError
from eef_jax.models import build, stacking
from eef_jax.models.config import ModelOptions
from eef_jax.sharding import make_mesh
from eef_jax.train import losses
from eef_jax.train import state as state_lib
from eef_jax.train.optim import make_optimizer
from eef_jax.train.step import SFT, check_batch_size, lower, make_step, put_batch
from eef_jax.types import Loss
from tests.train import toy

# SGD without clipping: the change of a parameter is its gradient times the rate. A large power of
# two costs the gradient no digit and drowns the parameter's own, which would round it.
RATE = 2.0**16
SGD = make_optimizer(
    OptimizerConfig(
        name="sgd", learning_rate=RATE, schedule="constant", warmup_ratio=0.0, b1=0.0, clip_norm=0.0
    ),
    1,
)


# Each loss with an option of its own; what they read: `toy.with_columns`.
LOSSES = {
    "dpo": Loss(name="dpo", options={"beta": 0.5}),
    "pg by token": Loss(name="pg", options={"clip_low": 0.5, "clip_high": 1.0}),
    "pg by sequence": Loss(name="pg", options={"normalization": "sequence", "kl": 0.1}),
}


def update(
    batches,
    *,
    mesh=None,
    lora=toy.LORA,
    scan=False,
    accumulation_steps=1,
    optimizer=SGD,
    loss=SFT,
):
    """Loss and gradient of the first batch."""
    mesh = mesh or toy.one_device()
    model = toy.model(lora, scan)
    state = state_lib.create(model, optimizer, mesh=mesh, seed=0)
    step = make_step(model, optimizer, mesh=mesh, loss=loss, accumulation_steps=accumulation_steps)
    batch, _ = next(batches.iterate())
    placed = put_batch(batch, mesh, batch_size=batches.batch_size)
    new, scalars = step(state, model.frozen, placed)
    grads = jax.tree.map(
        lambda a, b: (np.asarray(a) - np.asarray(b)) / RATE, model.trainable, new.trainable
    )
    return float(scalars["loss"]), stacking.unstack_state(grads), new


def assert_close(left, right):
    """Equal to 1e-5 in float32: the loss, and of gradients each entry beside its leaf's largest.

    Sums are taken in another order. An entry whose terms cancel out has the error of the terms, not
    of itself, so that its own size says nothing; the leaf's largest entry stands for the terms'.
    """
    np.testing.assert_allclose(left[0], right[0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max()),
        left[1],
        right[1],
    )


@functools.cache
def alone(lora=toy.LORA):
    """The reference: one device, one micro-batch."""
    return update(toy.batches(), lora=lora)


@pytest.mark.parametrize(
    ("sizes", "lora", "scan"),
    [
        ({"data": 8}, toy.LORA, False),
        ({"data": 2, "tensor": 4}, toy.LORA, False),
        ({"fsdp": 2, "tensor": 4}, None, False),
        ({"fsdp": 8}, toy.LORA, True),
        ({"data": 2, "fsdp": 2, "tensor": 2}, toy.LORA, True),
        ({"data": 2, "tensor": 2, "context": 2}, toy.LORA, True),
        ({"fsdp": 2, "tensor": 2, "context": 2}, None, True),
    ],
    ids=["8x1", "2x4", "full 2x4", "fsdp 8", "2x2x2", "2x2x2 context", "full 2x2x2 context"],
)
def test_a_mesh_does_not_change_the_update(sizes, lora, scan):
    spread = update(toy.batches(), lora=lora, scan=scan, mesh=make_mesh(sizes))
    assert_close(alone(lora), spread)


@functools.cache
def with_loss(name, sizes=(), accumulation_steps=1):
    """An update with one of `LOSSES`; on one device, or on a mesh of 8 with scanned layers."""
    loss = losses.make(LOSSES[name])
    batches = toy.batches(
        examples=toy.with_columns(LOSSES[name]), columns=loss.columns, max_loss_positions=16
    )
    mesh = make_mesh(dict(sizes)) if sizes else None
    return update(
        batches, mesh=mesh, scan=bool(sizes), accumulation_steps=accumulation_steps, loss=loss
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("sizes", "accumulation_steps"),
    [
        ((), 2),
        ((("fsdp", 8),), 1),
        ((("fsdp", 4), ("tensor", 2)), 2),
        ((("data", 2), ("tensor", 2), ("context", 2)), 2),
    ],
    ids=["accumulation", "fsdp", "fsdp and tensor, accumulation", "context, accumulation"],
)
def test_neither_mesh_nor_accumulation_changes_any_loss(name, sizes, accumulation_steps):
    assert_close(with_loss(name), with_loss(name, sizes, accumulation_steps))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(with_loss(name)[1]))


def test_scanned_layers_do_not_change_the_update():
    assert_close(alone(), update(toy.batches(), scan=True))


def test_parameters_and_moments_are_sharded_by_the_rules():
    mesh = make_mesh({"fsdp": 2, "tensor": 4})
    _, _, state = update(
        toy.batches(), mesh=mesh, lora=None, optimizer=make_optimizer(OptimizerConfig(), 1)
    )
    spec = state.trainable["layers"][0]["gate_proj"]["weight"].sharding.spec
    assert tuple(spec) == ("fsdp", "tensor")
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (16, 32)]
    assert moments and all(leaf.sharding.spec == spec for leaf in moments)


@pytest.mark.parametrize("accumulation_steps", [2, 4])
def test_accumulation_does_not_change_the_update(accumulation_steps):
    assert_close(alone(), update(toy.batches(), accumulation_steps=accumulation_steps))


def test_neither_micro_batches_nor_a_mesh_change_what_is_dropped():
    lora = dataclasses.replace(toy.LORA, dropout=0.5)
    whole = update(toy.batches(), lora=lora)
    assert_close(whole, update(toy.batches(), lora=lora, accumulation_steps=2))
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    assert_close(whole, update(toy.batches(), lora=lora, mesh=mesh))


@pytest.mark.parametrize("sizes", [{"data": 2, "tensor": 4}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_accumulation_over_a_mesh_changes_nothing(sizes):
    spread = update(toy.batches(), mesh=make_mesh(sizes), accumulation_steps=2, scan=True)
    assert_close(alone(), spread)


def test_the_step_compiles_once_and_leaves_its_state_where_it_was():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model, adam = toy.model(scan=True), make_optimizer(OptimizerConfig(), 3)
    state = state_lib.create(model, adam, mesh=mesh, seed=0)
    frozen = sharding.place_tree(model.frozen, mesh)
    step, compiled = make_step(model, adam, mesh=mesh), []
    expected = [leaf.sharding for leaf in jax.tree.leaves(state)]

    def heard(event, seconds, **_):
        compiled.append(event)

    for number, (batch, _) in zip(range(3), toy.batches().iterate(), strict=False):
        state, scalars = step(state, frozen, put_batch(batch, mesh, batch_size=8))
        assert np.isfinite(float(scalars["loss"]))
        assert [leaf.sharding for leaf in jax.tree.leaves(state)] == expected
        if number == 0:
            jax.monitoring.register_event_duration_secs_listener(heard)
    assert not [event for event in compiled if "backend_compile" in event]
    stacked = state.trainable["layers"][0]["q_proj"]
    assert tuple(stacked["lora_a"].sharding.spec) == (None, "fsdp", None)
    assert tuple(stacked["lora_b"].sharding.spec) == (None, None, "tensor")


@pytest.mark.optimized
@pytest.mark.parametrize(("chunk", "whole"), [(64, False), (256, True)])
def test_logits_of_all_tokens_never_exist(chunk, whole):
    config = dataclasses.replace(toy.CONFIG, vocab_size=640)
    model = build.abstract_model(
        config, ModelOptions(lora=toy.LORA, scan_layers=True, remat="block", dtype="bfloat16")
    )
    batch = empty_batch(1, 256, 256)
    lowered = lower(model, SGD, batch, mesh=toy.one_device(), chunk=chunk)
    made = hlo.parse(lowered.compile().as_text())
    largest = max(
        shape.size for one in made.instructions() for shape in one.shapes if 640 in shape.dims
    )
    assert (largest >= 256 * 640) == whole
    assert largest >= chunk * 640


def test_packed_equals_unpacked():
    packed = toy.batches(examples=toy.examples(8), seq_len=64, batch_size=2, max_loss_positions=48)
    unpacked = toy.batches(examples=toy.examples(8), seq_len=16, batch_size=8)
    assert len(packed.pack(0).rows) == 2
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
    make_step(model, SGD, mesh=mesh)(state, model.frozen, put_batch(batch, mesh, batch_size=8))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.trainable))


def test_rows_that_do_not_spread_are_refused():
    with pytest.raises(
        ConfigError, match=r"8 rows .* 2 micro-batches over the 8 .* multiple of 16"
    ):
        check_batch_size(8, mesh=make_mesh({"data": 8}), accumulation_steps=2)
