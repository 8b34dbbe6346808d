"""EEF on TextWorldExpress: `python -m eef_jax.main --config=configs/textworld_express.py`.

| preset | what | where |
|---|---|---|
| smollm2 (default) | a small chat model from `--config.model.path`, told to think aloud | any |

The expert knows the games' own solutions and does not always keep to them. Other games:
`--config.env.games=all`.
"""

from ml_collections import config_dict

from eef_jax import config as config_lib
from eef_jax.configs import common


def get_config(preset: str | None = None) -> config_dict.ConfigDict:
    """The config of a preset."""
    return common.choose({"smollm2": smollm2}, preset)


def smollm2() -> config_dict.ConfigDict:
    """A real small chat model from a Hugging Face folder; needs `--config.model.path=FOLDER`."""
    config = common.chat(config_lib.new(env="textworld_express", expert="gold", method="eef"))
    config.env.games = "cookingworld,twc,coin"
    config.env.prompt = "react"
    config.env.train_tasks = 300
    config.env.dev_tasks = 60
    config.env.test_tasks = 150
    config.env.jvms = 8
    config.expert.skip = 0.35
    config.expert.wrong = 0.0
    config.expert.stop = 0.3
    config.rollout.env_threads = 8
    config.rollout.concurrency = 8  # one a JVM: no episode waits for a replay
    config.rollout.env_timeout_s = 300.0  # the replay of a fork's prefix is one call
    return config
