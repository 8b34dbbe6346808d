"""EEF on TextWorldExpress: `python -m eef_jax.main --config=configs/textworld_express.py`.

| preset | what | where |
|---|---|---|
| smollm2 (default) | a small chat model from `--config.model.path`, told to think aloud | any |

The expert knows the games' own solutions and does not always keep to them. Other games:
`--config.env.games=all`.
"""

from ml_collections import config_dict

from configs import common


def get_config(preset: str | None = None) -> config_dict.ConfigDict:
    """The config of a preset."""
    presets = {"smollm2": smollm2}
    common.choose(presets, preset, "smollm2")
    return presets[preset or "smollm2"]()


def smollm2() -> config_dict.ConfigDict:
    """A real small chat model from a Hugging Face folder; needs `--config.model.path=FOLDER`."""
    config = common.chat(common.base())
    config.env = config_dict.ConfigDict(
        {
            "name": "textworld_express",
            "games": "cookingworld,twc,coin",
            "params": "",
            "prompt": "react",
            "train_tasks": 300,
            "dev_tasks": 60,
            "test_tasks": 150,
            "max_steps": 0,
            "reward": "final",
            "jvms": 8,
            "timeout_s": 60.0,
        }
    )
    config.expert.update({"name": "gold", "skip": 0.35, "wrong": 0.0, "stop": 0.3})
    config.rollout.env_threads = 8
    config.rollout.concurrency = 8  # as many as JVMs: none waits for a replay
    config.rollout.env_timeout_s = 300.0  # the replay of a fork's prefix is one call
    return config
