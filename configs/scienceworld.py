"""EEF on ScienceWorld: `python -m eef_jax.main --config=configs/scienceworld.py[:PRESET]`.

Paper: mean score 81.3 (Llama-3-8B; its split, step caps and prompt are not published).

| preset | what | where |
|---|---|---|
| demo | four short task types, fallible gold expert, ScienceWorld's nano base | 2 CPU cores |
| llama3_8b (default) | ETO's setting, model from `--config.model.path` | v5e:4x4, v6e:4x4 |

ETO's splits: `--config.env.train_indices=eval_agent/data/sciworld/train_indices.json` and so on,
from its repository; without them the first official variations of its 24 task types.
Other experts' trajectories: `--config.expert.trajectories=FOLDER`.
"""

from ml_collections import config_dict

from eef_jax import config as config_lib
from eef_jax.configs import architectures, common


def get_config(preset: str | None = None) -> config_dict.ConfigDict:
    """The config of a preset."""
    return common.choose({"llama3_8b": llama3_8b, "demo": demo}, preset)


def demo() -> config_dict.ConfigDict:
    """Four short task types, in rooms that a nano base can read.

    The expert looks around before it names anything: a policy that learns from it has no other way
    to know what is there. The base is the one that ships for ScienceWorld.
    """
    config = _gold()
    config.env.tasks = "find-living-thing,find-non-living-thing,find-plant,lifespan-longest-lived"
    config.env.train_tasks = 96
    config.env.dev_tasks = 48
    config.env.test_tasks = 96
    config.env.jvms = 8  # as rollout.concurrency: no episode waits for a replay
    config.expert.look = True
    config.method.rounds = 2
    config.model.path = "nano:scienceworld"
    config.engine.max_num_seqs = 8
    config.engine.max_context = 768
    config.rollout.env_threads = 8
    config.rollout.concurrency = 8
    config.explore.temperature = 0.8
    config.train.seq_len = 512
    # The clone's 35 wins are 7,000 tokens: more rows would leave too few steps.
    config.train.batch_size = 2
    config.train.epochs = 8
    config.train.optimizer.learning_rate = 2e-3
    return config


def llama3_8b() -> config_dict.ConfigDict:
    """Llama-3.1-8B-Instruct on 16 chips; needs `--config.model.path=FOLDER`."""
    config = common.sharded(_gold(), architectures.LLAMA3_8B, rows=16)
    config.env.tasks = "eto"
    config.env.prompt = "react"
    config.env.train_tasks = 1483  # as many as ETO's files name
    config.env.dev_tasks = 194
    config.env.test_tasks = 211
    config.env.move_limit = 200
    config.env.reward = "best"
    config.engine.max_context = 8192
    config.rollout.env_threads = 32  # threads that wait for JVMs
    config.rollout.concurrency = 32
    config.explore.max_new_tokens = 128
    config.evaluate.max_new_tokens = 128
    config.train.seq_len = 8192
    return config


def _gold() -> config_dict.ConfigDict:
    """What the presets share: the gold expert, and time for replays."""
    config = config_lib.new(env="scienceworld", expert="gold", method="eef")
    config.expert.skip = 0.35
    config.expert.wrong = 0.18
    config.expert.stop = 0.15
    config.rollout.env_timeout_s = 300.0  # the replay of a fork's prefix is one call
    return config
