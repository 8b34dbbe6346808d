"""Linear layers: fresh adapters, dropout, targets, merging, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from eef_jax.config.sections import TARGETS, LoraConfig
from eef_jax.errors import ConfigError
from eef_jax.models.linear import Linear, _merged_product
from eef_jax.models.model import merge
from tests.models.toys import forward, loud, rows, toy


def linear(dropout: float = 0.0) -> Linear:
    layer = Linear((6, 10), ("embed", "heads"), param_dtype="float32")
    layer.adapt(LoraConfig(rank=2, alpha=4.0, dropout=dropout))
    assert isinstance(layer.weight, nnx.Param)
    layer.weight[...] = jax.random.normal(jax.random.key(0), (6, 10))
    layer.lora_a[...] = jax.random.normal(jax.random.key(3), (6, 2))
    layer.lora_b[...] = jax.random.normal(jax.random.key(1), (2, 10))
    return layer


def test_a_fresh_adapter_changes_nothing():
    plain, adapted = toy(), toy(LoraConfig(rank=2))
    batch = rows(2, 5)
    np.testing.assert_array_equal(forward(plain.decoder)(*batch), forward(adapted.decoder)(*batch))


def test_only_the_named_targets_are_trainable():
    model = toy(LoraConfig(rank=2, targets=("q_proj", "down_proj")))
    paths = {path[-2:] for path, _ in nnx.to_flat_state(model.trainable)}
    assert paths == {(t, h) for t in ("q_proj", "down_proj") for h in ("lora_a", "lora_b")}


@pytest.mark.parametrize("count", [1, 50])  # few rows go through a and b, many through w + a b
def test_the_update_is_alpha_over_rank_times_a_b(count):
    layer = linear()
    x = jax.random.normal(jax.random.key(2), (count, 6))
    assert isinstance(layer.weight, nnx.Param)
    expected = x @ layer.weight[...] + 2.0 * (x @ layer.lora_a[...]) @ layer.lora_b[...]
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def keys(seed, rows):
    return jax.random.split(jax.random.key(seed), rows)


def test_dropout_depends_on_the_key_alone_and_needs_one():
    layer, x = linear(dropout=0.5), jnp.ones((50, 6))
    np.testing.assert_array_equal(layer(x), linear()(x))
    first, second = (layer(x, dropout_keys=keys(i, 50)) for i in (1, 2))
    np.testing.assert_array_equal(first, layer(x, dropout_keys=keys(1, 50)))
    assert np.any(first != second)
    # A row's key is its own, whatever rows it is computed with.
    np.testing.assert_array_equal(first[7:9], layer(x[7:9], dropout_keys=keys(1, 50)[7:9]))
    # Kept inputs are scaled up, so that the mean stays.
    many = jnp.ones((200_000, 6))
    mean = layer(many, dropout_keys=keys(3, 200_000)).mean(0)
    np.testing.assert_allclose(mean, linear()(x)[0], atol=0.1)


def test_dropout_reaches_the_whole_decoder():
    model = toy(LoraConfig(rank=2, dropout=0.5))
    decoder = merge(model.graphdef, model.frozen, loud(model.trainable))
    batch = rows(2, 5)
    layer = jax.jit(lambda keys: decoder(*batch, dropout_keys=keys))
    first, second = layer(keys(0, 2)), layer(keys(1, 2))
    assert np.any(first != second)
    assert np.any(first != forward(decoder)(*batch))


def test_the_merged_weight_equals_weight_and_adapter():
    layer, x = linear(), jax.random.normal(jax.random.key(2), (3, 6))
    np.testing.assert_allclose(x @ layer.merged_weight(), layer(x), atol=1e-5)


def test_rank_stabilised_adapters_are_scaled_by_the_root_of_the_rank():
    assert LoraConfig(rank=16, alpha=32.0).scale == 2.0
    assert LoraConfig(rank=16, alpha=32.0, rslora=True).scale == 8.0


@pytest.mark.parametrize(
    ("target", "adapted"),
    [
        ("v_proj", {(0, "v_proj"), (1, "v_proj")}),
        ("layers.1.mlp.up_proj", {(1, "up_proj")}),
        ("model.layers.0.self_attn.q_proj", {(0, "q_proj")}),
        (r".*layers\.0\.mlp\.(up|down)_proj", {(0, "up_proj"), (0, "down_proj")}),
    ],
)
def test_targets_are_names_ends_of_names_or_patterns(target, adapted):
    model = toy(LoraConfig(rank=2, targets=(target,)))
    assert {path[1:3] for path, _ in nnx.to_flat_state(model.trainable)} == adapted


@pytest.mark.parametrize("target", ["layers.2.mlp.up_proj", "mlp.q_proj", "up_.*"])
def test_a_target_that_matches_nothing_is_named(target):
    with pytest.raises(ConfigError, match=r"match no projection.*layers\.0\.self_attn\.q_proj"):
        toy(LoraConfig(rank=2, targets=("q_proj", target)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": ("qproj",)}, "did you mean q_proj"),
        ({"rank": 0}, "1 or more"),
        ({"dropout": 1.0}, "below 1"),
        ({"targets": ("up_(proj",)}, "neither a name nor a regular expression"),
    ],
)
def test_a_useless_adapter_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        LoraConfig(**options)


def test_targets_are_the_projections_of_a_block():
    layer = toy(LoraConfig(rank=2)).decoder.layers[0]
    assert [part.adapted for part in layer.projections()] == [True] * len(TARGETS)


def test_gradients_of_a_wide_projection_go_through_the_adapter_alone():
    # Wide enough that the sum's own gradient is not computed; the maths is the same.
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 24, 32), "weight": (32, 40), "a": (32, 2), "b": (2, 40)}
    given = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes.values()]

    def plain(x, weight, a, b):
        return jnp.sum(jnp.sin(x @ (weight + 0.5 * (a @ b))))

    def ours(x, weight, a, b):
        return jnp.sum(jnp.sin(_merged_product(0.5, x, weight, a, b)))

    assert plain(*given) == ours(*given)
    wanted, got = (jax.jit(jax.grad(f, argnums=(0, 2, 3)))(*given) for f in (plain, ours))
    for left, right in zip(wanted, got, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)
