"""Schedules and optimizers by name."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import pytest

from eef_jax.config.sections import OptimizerConfig, OptimizerName
from eef_jax.errors import ConfigError
from eef_jax.train.optim import make_optimizer, make_schedule


@pytest.mark.parametrize(
    ("schedule", "half", "last"),
    [("constant", 1.0, 1.0), ("linear", 0.6, 0.2), ("cosine", 0.6, 0.2)],
)
def test_schedules_warm_up_to_the_peak_and_end_at_their_ratio_of_it(schedule, half, last):
    config = OptimizerConfig(
        learning_rate=2.0, schedule=schedule, warmup_ratio=0.2, end_lr_ratio=0.2
    )
    rate = make_schedule(config, 50)
    assert 0 < rate(0) < rate(5) < rate(10) == 2.0
    assert rate(30) == pytest.approx(2.0 * half)
    assert rate(50) == pytest.approx(2.0 * last)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "adafactor", "rmsprop"])
def test_every_optimizer_descends(name):
    optimizer = make_optimizer(OptimizerConfig(name=name, learning_rate=0.1, warmup_ratio=0.0), 10)
    params = {"w": jnp.ones((2, 2))}
    state = optimizer.init(params)
    updates, _ = optimizer.update(params, state, params)
    assert jax.tree.all(jax.tree.map(lambda update: (update < 0).all(), updates))


def test_a_rate_of_0_follows_what_is_tuned():
    rates = [OptimizerConfig().resolved(adapter=adapter).learning_rate for adapter in (True, False)]
    assert rates == [2e-4, 1e-5]
    given = OptimizerConfig(learning_rate=0.1)
    assert given.resolved(adapter=False) == given


def test_the_names_of_the_config_are_optaxs():
    for name in typing.get_args(OptimizerName):
        make_optimizer(OptimizerConfig(name=name), 10)


def test_vectors_are_not_decayed():
    config = OptimizerConfig(
        learning_rate=0.1, warmup_ratio=0.0, weight_decay=0.5, schedule="constant"
    )
    optimizer = make_optimizer(config, 10)
    params = {"matrix": jnp.ones((2, 2)), "norm": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    assert float(updates["matrix"][0, 0]) == pytest.approx(-0.05)
    assert float(updates["norm"][0]) == 0.0


def test_weight_decay_with_an_optimizer_without_it_is_refused():
    with pytest.raises(ConfigError, match=r"'sgd' has no weight decay, but weight_decay = 0\.1"):
        make_optimizer(OptimizerConfig(name="sgd", weight_decay=0.1), 10)


@pytest.mark.parametrize(("field", "value"), [("name", "adamm"), ("schedule", "cosin")])
def test_unknown_names_suggest_close_matches(field, value):
    config = dataclasses.replace(OptimizerConfig(), **{field: value})
    with pytest.raises(ConfigError, match=f"unknown .* '{value}': did you mean"):
        make_optimizer(config, 10)
