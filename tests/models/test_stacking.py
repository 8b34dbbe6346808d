"""Stacked and scanned layers against the same layers one after the other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from eef_jax.config.sections import LoraConfig
from eef_jax.errors import ConfigError
from eef_jax.models import build, stacking
from eef_jax.models.config import ModelOptions
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.huggingface import peft
from eef_jax.models.model import content_hash, merge
from eef_jax.models.remat import POLICIES
from tests.models.toys import CONFIG, config_of, loud, rows, toy

LORA = LoraConfig(rank=2, targets=("q_proj", "down_proj"))
# A pattern of two kinds of layers with one left over, and rotations that differ.
MIXED = dataclasses.replace(
    CONFIG, n_layers=5, windows=(3, None, 3, None, 3), local_rope_theta=100.0, qk_norm=True
)


def both(config=CONFIG, lora=LORA, **options):
    """The same weights in both layouts, none of them 0."""
    unrolled = toy(lora, config)
    unrolled = dataclasses.replace(unrolled, trainable=loud(unrolled.trainable))
    scanned = toy(lora, config, scan_layers=True, **options)
    trainable = stacking.restack_state(unrolled.trainable, scanned.trainable)
    return unrolled, dataclasses.replace(scanned, trainable=trainable)


def loss_and_gradient(model, dropout_keys=None):
    def loss(trainable):
        decoder = merge(model.graphdef, model.frozen, trainable)
        tokens, positions, segments = rows(2, 8)
        hidden = decoder(tokens, positions, segments, dropout_keys=dropout_keys)
        return jnp.sum(jnp.sin(decoder.logits(hidden)))

    value, gradient = jax.jit(jax.value_and_grad(loss))(model.trainable)
    return value, stacking.unstack_state(gradient)


def assert_same(left, right):
    (a, grads_a), (b, grads_b) = left, right
    np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * np.abs(y).max()),
        grads_a,
        grads_b,
    )


@functools.cache
def expected():
    return loss_and_gradient(both()[0])


@pytest.mark.parametrize("remat", ["none", "dots", "block"])
def test_a_scan_gives_the_loss_and_gradient_of_its_layers(remat):
    assert_same(loss_and_gradient(both(remat=remat)[1]), expected())


def test_rematerialisation_without_a_scan_changes_no_gradient():
    kept = dataclasses.replace(toy(LORA, remat="block"), trainable=both()[0].trainable)
    assert_same(loss_and_gradient(kept), expected())


def test_without_remat_a_feed_forward_saves_gate_and_up_only():
    model, _ = both()

    def hidden(trainable):
        return merge(model.graphdef, model.frozen, trainable)(*rows(2, 8))

    kept = jax.tree.leaves(jax.vjp(hidden, model.trainable)[1])
    wide = [array for array in kept if array.shape == (2, 8, CONFIG.d_ff)]
    assert len(wide) == 2 * CONFIG.n_layers


def test_a_scan_in_full_tuning():
    unrolled, scanned = both(lora=None)
    assert_same(loss_and_gradient(scanned), loss_and_gradient(unrolled))


def test_offloaded_layers_move_what_goes_into_them_to_the_host():
    _, scanned = both(remat="offload")

    def loss(trainable):
        decoder = merge(scanned.graphdef, scanned.frozen, trainable)
        return jnp.sum(decoder(*rows(2, 8)))

    text = str(jax.make_jaxpr(jax.grad(loss))(scanned.trainable))
    assert "host" in text


def test_kinds_of_layers_and_their_dropout_stay_their_own():
    lora = dataclasses.replace(LORA, dropout=0.5)
    unrolled, scanned = both(MIXED, lora, remat="block")
    keys = jax.random.split(jax.random.key(3), 2)
    assert_same(loss_and_gradient(scanned, keys), loss_and_gradient(unrolled, keys))


def test_a_pattern_is_stacked_by_kind_and_leftover_layers_are_separate():
    assert stacking.stack_groups(CONFIG) == [(0, 1)]
    assert stacking.stack_groups(MIXED) == [(0, 2), (1, 3), (4,)]
    assert stacking.stack_groups(config_of("gemma2", num_hidden_layers=4)) == [(0, 2), (1, 3)]


def test_fresh_weights_hashes_and_names_do_not_depend_on_the_layout():
    unrolled, scanned = toy(LORA, MIXED), toy(LORA, MIXED, scan_layers=True)
    assert content_hash(unrolled.frozen) == content_hash(scanned.frozen)
    assert content_hash(unrolled.trainable) == content_hash(scanned.trainable)
    back = stacking.unstack_state(scanned.trainable)
    jax.tree.map(np.testing.assert_array_equal, back, unrolled.trainable)
    again = build.unrolled(scanned)
    jax.tree.map(np.testing.assert_array_equal, again.frozen, unrolled.frozen)
    assert again.graphdef == unrolled.graphdef


def test_folders_and_adapters_are_the_same_from_either(tmp_path):
    unrolled, scanned = both()
    for name, model in (("unrolled", unrolled), ("scanned", scanned)):
        hf.save(model, tmp_path / name)
        peft.save(model, tmp_path / f"{name}_adapter", base="")
    for file in ("model.safetensors",):
        assert (tmp_path / "unrolled" / file).read_bytes() == (
            tmp_path / "scanned" / file
        ).read_bytes()
    weights = [tmp_path / f"{name}_adapter" / peft.WEIGHTS for name in ("unrolled", "scanned")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    loaded = hf.load(tmp_path / "unrolled", ModelOptions(lora=LORA, scan_layers=True))
    assert content_hash(loaded.frozen) == content_hash(hf.load(tmp_path / "scanned").trainable)
    fresh = dataclasses.replace(scanned, trainable=toy(LORA, scan_layers=True).trainable)
    adapter = peft.load(tmp_path / "unrolled_adapter", fresh)
    jax.tree.map(np.testing.assert_array_equal, adapter, scanned.trainable)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_layers_are_scanned_too(kind):
    unrolled, scanned = toy(LORA, quantization=kind), toy(LORA, scan_layers=True, quantization=kind)
    assert content_hash(unrolled.frozen) == content_hash(scanned.frozen)
    assert_same(loss_and_gradient(scanned), loss_and_gradient(unrolled))


def test_layers_that_differ_are_refused():
    with pytest.raises(ConfigError, match=r"layers 0 and 1 differ .*scan_layers=False"):
        toy(LoraConfig(rank=2, targets=("layers.0.self_attn.q_proj",)), scan_layers=True)


def test_an_unknown_policy_names_the_known_ones():
    with pytest.raises(ConfigError, match="known: block, dots, none, offload"):
        toy(remat="blocks!")
    assert set(POLICIES) == {"none", "dots", "block", "offload"}


def test_stacks_carry_an_axis_for_their_layers():
    for _, leaf in nnx.to_flat_state(toy(LORA, MIXED, scan_layers=True).frozen):
        axes = leaf.get_metadata()["axes"]
        assert len(axes) == leaf.ndim
