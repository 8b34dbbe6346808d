"""Families are found by the files that declare them; shapes that cannot work are refused."""

import dataclasses

import pytest

from eef_jax.errors import ConfigError
from eef_jax.models.families import registry
from eef_jax.models.model import content_hash
from tests.models.toys import CONFIG, toy


def test_a_model_type_without_a_family_names_the_near_ones():
    with pytest.raises(ConfigError, match="did you mean llama"):
        registry.family("lama")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_kv_heads": 3}, "not a multiple"),
        ({"head_dim": 7}, "even"),
        ({"activation": "gelu"}, "did you mean gelu_tanh"),
        ({"windows": (4,)}, "1 windows for 2 layers"),
        ({"windows": (4, 0)}, "window of 0"),
    ],
)
def test_shapes_that_cannot_work_are_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(CONFIG, **change)


def test_the_hash_follows_the_content():
    first, again, other = (content_hash(toy(seed=seed).trainable) for seed in (0, 0, 1))
    assert first == again != other
