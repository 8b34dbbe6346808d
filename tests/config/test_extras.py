"""The extras that a launcher installs for a config."""

import tomllib
from pathlib import Path

import pytest

from eef_jax import config as config_lib
from eef_jax.config.extras import extras
from eef_jax.configs import scienceworld, textworld_express, webshop

DECLARED = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("module", "preset", "needed"),
    [
        (webshop, "tiny", []),
        (webshop, "served", ["openai"]),
        (scienceworld, "demo", ["scienceworld"]),
        (textworld_express, "smollm2", ["textworld-express"]),
    ],
)
def test_extras_of_a_config(module, preset, needed):
    config = config_lib.read(module.get_config(preset).to_dict())
    assert extras(config) == needed
    assert set(needed) <= set(DECLARED["optional-dependencies"])
