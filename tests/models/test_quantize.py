"""Quantized bases: error of the codes, products, training, sharding, export, refused options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from eef_jax import sharding
from eef_jax.config.sections import LoraConfig
from eef_jax.errors import ConfigError
from eef_jax.models import quantize
from eef_jax.models.config import ModelOptions
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import content_hash, merge
from tests.models.toys import CONFIG, forward, loud, rows, toy

LORA = LoraConfig(rank=2)
# Appendix E of arXiv:2305.14314.
PAPER = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


def filled(kind, weight):
    made = quantize.KINDS[kind](weight.shape, ("embed", "mlp"))
    for name, value in made.encode(weight).items():
        getattr(made, name)[...] = jnp.asarray(value)
    return made


def test_the_levels_are_the_papers():
    np.testing.assert_allclose(quantize.LEVELS, PAPER, atol=2e-6)


@pytest.mark.parametrize("kind", sorted(quantize.KINDS))
def test_codes_decode_to_the_nearest_level(kind):
    weight = np.random.default_rng(0).standard_normal((128, 300), np.float32)
    weight[:, 7] = 0.0
    restored = np.asarray(filled(kind, weight).dequantize())
    if kind == "int8":
        step = np.abs(weight).max(axis=0) / 127
        assert np.all(np.abs(restored - weight) <= step / 2 + 1e-6)
    else:
        blocks = weight.reshape(2, 64, 300)
        scale = np.abs(blocks).max(axis=1, keepdims=True)
        nearest = np.abs(blocks[..., None] - scale[..., None] * quantize.LEVELS).min(axis=-1)
        np.testing.assert_allclose(
            np.abs(restored - weight).reshape(blocks.shape), nearest, atol=1e-6
        )
    # What is a level already stays: encoding twice changes nothing more.
    np.testing.assert_allclose(filled(kind, restored).dequantize(), restored, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(quantize.KINDS))
def test_a_product_and_its_gradient_equal_those_of_the_dequantized_weight(kind):
    rng = np.random.default_rng(1)
    weight = filled(kind, rng.standard_normal((12, 10), np.float32))
    x = jnp.asarray(rng.standard_normal((5, 12), np.float32))
    np.testing.assert_allclose(weight.product(x), x @ weight.dequantize(), atol=1e-5)
    got = jax.grad(lambda x: jnp.sum(weight.product(x) ** 2))(x)
    expected = jax.grad(lambda x: jnp.sum((x @ weight.dequantize()) ** 2))(x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert weight.product(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.03), ("nf4", 0.3)])
def test_a_quantized_base_is_close_and_only_adapters_are_trainable(tmp_path, kind, most):
    plain = toy(LORA)
    hf.save(plain, tmp_path)
    model = hf.load(tmp_path, ModelOptions(lora=LORA, quantization=kind))
    full = hf.load(tmp_path, ModelOptions(lora=LORA))
    assert content_hash(model.trainable) == content_hash(full.trainable)
    assert {path[-1] for path, _ in nnx.to_flat_state(model.trainable)} == {"lora_a", "lora_b"}
    batch, trainable = rows(2, 9), loud(plain.trainable)

    def hidden(model):
        return np.asarray(forward(merge(model.graphdef, model.frozen, trainable))(*batch))

    expected = hidden(plain)
    assert np.abs(hidden(model) - expected).mean() < most * np.abs(expected).mean()


def test_sharded_quantized_weights_give_the_logits_of_one_device(tmp_path):
    hf.save(toy(), tmp_path)
    mesh = sharding.make_mesh({"fsdp": 2, "tensor": 4})
    options = ModelOptions(lora=LORA, quantization="nf4")
    one, many = (hf.load(tmp_path, options, mesh=m) for m in (None, mesh))
    assert content_hash(one.frozen) == content_hash(many.frozen)
    codes = many.frozen["layers"][0]["up_proj"]["weight"]["codes"][...]
    assert codes.sharding.spec == jax.sharding.PartitionSpec("fsdp", "tensor")
    batch = rows(4, 6)
    with jax.set_mesh(mesh):
        got = forward(many.decoder)(*batch)
    np.testing.assert_allclose(got, forward(one.decoder)(*batch), atol=1e-5)


def test_a_saved_model_holds_the_dequantized_weights_with_the_adapter(tmp_path):
    hf.save(toy(), tmp_path / "base")
    options = ModelOptions(lora=LORA, quantization="nf4", param_dtype="bfloat16")
    model = hf.load(tmp_path / "base", options)
    model = dataclasses.replace(model, trainable=loud(model.trainable))
    hf.save(model, tmp_path / "merged", dtype="float32")
    batch = rows(2, 5)
    got = forward(hf.load(tmp_path / "merged").decoder)(*batch)
    np.testing.assert_allclose(got, forward(model.decoder)(*batch), atol=2e-4)


def test_unsupported_options_are_refused():
    with pytest.raises(ConfigError, match="add an adapter"):
        toy(quantization="nf4")
    with pytest.raises(ConfigError, match="did you mean nf4"):
        toy(LORA, quantization="fp4")
    with pytest.raises(ConfigError, match="must be even"):
        toy(LORA, dataclasses.replace(CONFIG, d_ff=25), quantization="nf4")
