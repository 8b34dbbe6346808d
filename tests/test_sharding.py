"""The mesh, the rules, and specs that always have their leaf's rank and divide it."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from eef_jax import sharding
from eef_jax.config.sections import LoraConfig
from eef_jax.errors import ConfigError
from tests.models.toys import toy


def test_minus_one_takes_the_rest():
    mesh = sharding.make_mesh({"data": -1, "tensor": 4})
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 4, "context": 1}
    assert sharding.make_mesh({"data": 1}, jax.devices()[:1]).size == 1


@pytest.mark.parametrize("sizes", [{"data": 3}, {"data": -1, "fsdp": -1}, {"data": 2}, {"data": 0}])
def test_sizes_that_do_not_fit_the_devices_are_refused(sizes):
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        sharding.make_mesh(sizes)


def test_an_unknown_axis_names_the_near_ones():
    with pytest.raises(ConfigError, match="did you mean tensor"):
        sharding.make_mesh({"tensr": 2})


def test_an_axis_that_does_not_divide_is_left_out():
    mesh = sharding.make_mesh({"fsdp": 2, "tensor": 4})
    assert sharding.partition_spec(("embed", "heads"), (16, 32), mesh) == P("fsdp", "tensor")
    assert sharding.partition_spec(("embed", "heads"), (15, 6), mesh) == P(None, None)
    assert sharding.partition_spec(("embed", "embed"), (16, 16), mesh) == P("fsdp", None)


@pytest.mark.parametrize("rank", [3, 4])
def test_every_parameter_has_a_partition_spec_that_divides_it(rank):
    mesh = sharding.make_mesh({"fsdp": 2, "tensor": 4})
    model = toy(LoraConfig(rank=rank))
    for state in (model.frozen, model.trainable):
        for _, leaf in nnx.to_flat_state(state):
            assert len(leaf.get_metadata()["axes"]) == leaf.ndim
            placed = sharding.place_tree(leaf, mesh)
            assert len(placed[...].sharding.spec) == leaf.ndim
            placed[...].sharding.shard_shape(leaf.shape)  # raises where it does not divide
    query = sharding.tree_shardings(model.trainable, mesh)["layers"][0]["q_proj"]
    assert query["lora_a"].get_value().spec == P("fsdp", None)
    assert query["lora_b"].get_value().spec == P(None, "tensor")


def test_an_optimizer_state_has_the_sharding_of_its_parameters():
    mesh = sharding.make_mesh({"fsdp": 2, "tensor": 4})
    model = toy(LoraConfig(rank=4))
    moments = sharding.place_tree(optax.adam(1e-3).init(model.trainable), mesh)
    mu = moments[0].mu["layers"][0]["down_proj"]["lora_a"]
    assert mu[...].sharding.spec == P("tensor", None)
    assert moments[0].count.sharding.is_fully_replicated


def test_constrain_does_nothing_without_a_mesh():
    x = jnp.ones((4, 4))
    assert sharding.constrain(x, ("batch", None)) is x


@pytest.mark.parametrize("sizes", [{"data": 8}, {"fsdp": 2, "tensor": 4}, {"context": 8}])
def test_one_process_holds_all_rows(sizes):
    assert sharding.process_rows(sharding.make_mesh(sizes), 16) == tuple(range(16))
