"""Families are found by the files that declare them; shapes that cannot work are refused."""

import dataclasses

import pytest

from eef_jax.errors import ConfigError
from eef_jax.models import base
from tests.models.toys import CONFIG, toy


@pytest.mark.parametrize("model_type", sorted(base.families()))
def test_each_family_translates_its_config_there_and_back(model_type):
    module = base.family(model_type)
    config = dataclasses.replace(CONFIG, model_type=model_type)
    assert module.config_from_hf(module.config_to_hf(config)) == config


@pytest.mark.parametrize(
    ("change", "said"), [({"n_kv_heads": 3}, "no multiple"), ({"head_dim": 7}, "even")]
)
def test_shapes_that_cannot_work_are_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(CONFIG, **change)


def test_the_hash_follows_the_content():
    first, again, other = (base.content_hash(toy(seed=seed).trainable) for seed in (0, 0, 1))
    assert first == again != other
