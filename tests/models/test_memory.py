"""A base that does not fit a process's devices is refused with the numbers."""

import types
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from eef_jax.errors import ConfigError
from eef_jax.models import memory
from eef_jax.models.model import fetch_chunks
from eef_jax.sharding import make_mesh, place_tree
from tests.train import toy


def on_memory(mesh, **stats):
    """The mesh's shape on devices that report these figures."""
    device = types.SimpleNamespace(memory_stats=lambda: stats)
    return mock.Mock(spec=Mesh, shape=mesh.shape, devices=np.array([device], dtype=object))


def test_bytes_are_those_that_a_device_then_holds():
    model = toy.model()
    for sizes in ({"data": 8}, {"fsdp": 2, "tensor": 4}):
        mesh = make_mesh(sizes)
        leaves = jax.tree.leaves(place_tree((model.frozen, model.trainable), mesh))
        held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
        assert memory.bytes_per_device(model, mesh) == held


def test_what_does_not_fit_is_refused_with_the_numbers(monkeypatch):
    mesh, model = make_mesh({"data": 8}), toy.model()
    monkeypatch.setattr(memory, "bytes_per_device", lambda model, mesh: 3 << 30)
    memory.check_fits(model, on_memory(mesh))  # a CPU tells nothing
    memory.check_fits(model, on_memory(mesh, bytes_limit=8 << 30, bytes_in_use=5 << 30))
    with pytest.raises(ConfigError, match=r"rollout_mesh.*takes 3\.00 GiB.*6\.00 of 8\.00 GiB"):
        memory.check_fits(model, on_memory(mesh, bytes_limit=8 << 30, bytes_in_use=6 << 30))


@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
def test_a_spread_array_is_fetched_in_pieces(piece):
    mesh = make_mesh({"fsdp": 8})
    for leaf in jax.tree.leaves(place_tree(toy.model().frozen, mesh)):
        pieces = list(fetch_chunks(leaf, piece))
        np.testing.assert_array_equal(np.concatenate(pieces), np.asarray(leaf))
