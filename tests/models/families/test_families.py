"""Conformance of every family file; none is named here.

Round trips of configs and weights, refusal of unsupported fields, and the decoder's invariances:
cached = full forward, packed = alone, sharded = on one device.
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from eef_jax import sharding
from eef_jax.config.sections import TARGETS, LoraConfig
from eef_jax.errors import ConfigError
from eef_jax.models.families import hf_names, registry
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import content_hash, merge
from tests.models import paged
from tests.models.toys import config_of, forward, loud, rows, tiny, toy

# Sums of float32 are taken in another order.
CLOSE = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-4)
LENGTH = 140  # beyond one block of queries, one of the cache, and the toys' windows

pytestmark = pytest.mark.parametrize("model_type", sorted(registry.families()))


@functools.cache
def decoder(model_type):
    model = toy(config=config_of(model_type))
    return merge(model.graphdef, model.frozen, loud(model.trainable))


@functools.cache
def full(model_type):
    return forward(decoder(model_type))


def test_a_config_survives_a_round_trip(model_type):
    config = config_of(model_type)
    module = registry.family(config.model_type)
    assert module.config_from_hf(module.config_to_hf(config)) == config
    json.dumps(module.config_to_hf(config))


def test_fields_that_a_file_leaves_out_have_defaults(model_type):
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    raw = tiny(model_type)
    few = {name: raw[name] for name in (*sizes, "num_attention_heads", "num_key_value_heads")}
    config = registry.family(model_type).config_from_hf(
        {**few, "text_config": few, "model_type": model_type}
    )
    assert config.max_positions > 256


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_act": "relu", "hidden_activation": "relu"}, "'relu'"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ({"auto_map": {"AutoModel": "x.y"}}, "auto_map"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "lacks 'low_freq_factor'"),
        ({"num_attention_heads": None}, "num_attention_heads = None"),
        ({"hidden_size": 0}, "hidden_size = 0"),
    ],
)
def test_unsupported_fields_are_refused_by_name(model_type, change, said):
    with pytest.raises(ConfigError, match=said):
        config_of(model_type, **change)


def test_a_shape_that_config_json_cannot_express_is_not_written(model_type):
    config = config_of(model_type)
    other = dataclasses.replace(config, zero_centered_norms=not config.zero_centered_norms)
    with pytest.raises(ConfigError, match="cannot say zero_centered_norms"):
        registry.family(config.model_type).config_to_hf(other)


def test_the_table_names_every_parameter(model_type, tmp_path):
    model = toy(config=config_of(model_type, tie_word_embeddings=False))
    model = dataclasses.replace(model, trainable=loud(model.trainable))
    hf.save(model, tmp_path)
    stored = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert len(stored) == len(jax.tree.leaves(model.trainable))
    again = hf.load(tmp_path)
    assert again.config == model.config
    assert content_hash(again.trainable) == content_hash(model.trainable)


def test_tensors_are_known_by_the_tables_names_under_other_prefixes_too(model_type):
    config = config_of(model_type)
    renamed = getattr(registry.family(model_type), "RENAMED", {"": ""})
    for prefix, new in renamed.items():
        expected = {} if new is None else {new + "layers.0.x": 1}
        assert hf_names.canonical_names(config, {prefix + "layers.0.x": 1}) == expected
    assert hf_names.canonical_names(config, {"model.norm.weight": 2}) == {"model.norm.weight": 2}


def test_tokens_through_the_cache_equal_the_full_forward(model_type):
    tokens, positions, segments = rows(3, LENGTH)
    expected = full(model_type)(tokens, positions, segments)
    extend = jax.jit(functools.partial(paged.extend, decoder(model_type)))
    cache, table = paged.cache(config_of(model_type), 3, LENGTH)
    got = []
    for start, end in [(0, 66), (66, 132), *((i, i + 1) for i in range(132, LENGTH))]:
        out, cache = extend(cache, tokens[:, start:end], positions[:, start:end], table)
        got.append(out)
    CLOSE(jnp.concatenate(got, axis=1), expected)


def test_a_packed_segment_sees_neither_its_neighbours_nor_padding(model_type):
    tokens, places, _ = rows(1, LENGTH)
    place = places[0]
    # The same tokens three times: two segments and padding, and each of these alone.
    owners = jnp.where(place < 70, 1, jnp.where(place < 130, 2, 0))
    segments = jnp.stack([owners, jnp.where(owners == 1, 1, 0), jnp.where(owners == 2, 1, 0)])
    positions = jnp.where(owners == 2, place - 70, place)
    packed = full(model_type)(*(jnp.tile(x, (3, 1)) for x in (tokens, positions)), segments)
    CLOSE(packed[0, :70], packed[1, :70])
    CLOSE(packed[0, 70:130], packed[2, 70:130])
    assert np.all(np.isfinite(packed))


def test_two_by_four_devices_give_the_logits_of_one(model_type):
    model = toy(LoraConfig(rank=4), config_of(model_type, tie_word_embeddings=False))
    frozen, trainable = loud(model.frozen), loud(model.trainable, seed=2)
    batch = rows(4, 24)

    def logits(frozen, trainable, batch):
        decoder = merge(model.graphdef, frozen, trainable)
        return decoder.logits(decoder(*batch))

    expected = jax.jit(logits)(frozen, trainable, batch)
    mesh = sharding.make_mesh({"data": 1, "fsdp": 2, "tensor": 4})
    placed = [sharding.place_tree(state, mesh) for state in (frozen, trainable)]
    sharded_batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    expected_sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))
    with jax.set_mesh(mesh):
        got = jax.jit(logits)(*placed, sharded_batch)
    assert got.sharding.is_equivalent_to(expected_sharding, 3), got.sharding
    CLOSE(got, expected)


@pytest.mark.parametrize("rank", [3, 4])
def test_every_parameter_has_a_partition_spec_that_divides_it(model_type, rank):
    mesh = sharding.make_mesh({"fsdp": 2, "tensor": 4})
    model = toy(LoraConfig(rank=rank), config_of(model_type))
    adapted = set()
    for state in (model.frozen, model.trainable):
        for path, leaf in nnx.to_flat_state(state):
            spec = sharding.tree_shardings(leaf, mesh).get_value()
            assert len(leaf.get_metadata()["axes"]) == len(spec.spec) == leaf.ndim
            spec.shard_shape(leaf.shape)  # raises where it does not divide
            if isinstance(leaf, nnx.LoRAParam):
                assert "rank" in leaf.get_metadata()["axes"]
                adapted.add(path[-2])
    assert adapted == set(TARGETS)
