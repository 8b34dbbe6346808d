"""The configs' presets name what their parts take; none is run here."""

import contextlib
import dataclasses
import importlib

import pytest

from eef_jax import config as config_lib
from eef_jax.configs import scienceworld, textworld_express, webshop
from eef_jax.errors import ConfigError, EnvError
from eef_jax.experts import plays_held_out

JAVA = [
    (scienceworld, "demo", (96, 48, 96)),
    (scienceworld, "llama3_8b", (1483, 194, 211)),
    (textworld_express, "smollm2", (300, 60, 150)),
]


@pytest.fixture(params=JAVA, ids=lambda row: f"{row[0].__name__}:{row[1]}")
def preset(request):
    module, name, sizes = request.param
    config = config_lib.read(module.get_config(name).to_dict())
    try:
        env = config_lib.make("env", config.env)
    except (ConfigError, EnvError) as error:
        # Only what is not installed is skipped: a wrong name in a preset is a failure.
        if not any(word in str(error) for word in ("not installed", "Java")):
            raise
        pytest.skip(f"{module.__name__}: {error}")
    with contextlib.closing(env):
        yield config, env, sizes


@pytest.mark.java
def test_a_java_preset_makes_its_environment_and_expert(preset):
    config, env, sizes = preset
    assert tuple(len(env.tasks(split)) for split in ("train", "dev", "test")) == sizes
    assert (config.expert.name, config.expert.trajectories) == ("gold", "")
    assert config_lib.make("expert", config.expert, env=env)
    # A thread for each JVM, else some of them wait for a thread.
    assert config.rollout.env_threads >= config.env.options.jvms


@pytest.mark.parametrize("module", ["scienceworld", "textworld_express", "webshop"])
def test_an_unknown_preset_names_the_near_ones(module):
    with pytest.raises(ConfigError, match="no preset 'smolm' in this config"):
        importlib.import_module(f"eef_jax.configs.{module}").get_config("smolm")


@pytest.mark.parametrize("module", ["scienceworld", "textworld_express", "webshop"])
def test_every_preset_is_valid(module):
    made = importlib.import_module(f"eef_jax.configs.{module}")
    with pytest.raises(ConfigError) as error:
        made.get_config("?")
    names = str(error.value).rpartition("known: ")[2].split(", ")
    for name in names:
        config_lib.read(made.get_config(name).to_dict())


@pytest.mark.parametrize("name", ["smollm2", "served", "one_gpu", "qwen2_5_1_5b", "llama3_8b"])
def test_presets_of_real_models_are_as_the_paper(name):
    config = config_lib.read(webshop.get_config(name).to_dict())
    assert config.method.options.rounds == 3 and config.explore.temperature == 1.0
    assert config.env.options.max_steps == 0  # the prompt's own
    assert config.train.optimizer.learning_rate == 0.0  # follows an adapter or full tuning


def test_only_an_expert_that_costs_nothing_plays_the_test_split_unasked():
    for name, evaluated in {"demo": True, "served": False}.items():
        config = config_lib.read(webshop.get_config(name).to_dict())
        assert plays_held_out(config.expert) == evaluated
        asked = dataclasses.replace(config.expert, evaluate="yes")
        refused = dataclasses.replace(config.expert, evaluate="no")
        assert plays_held_out(asked) and not plays_held_out(refused)
