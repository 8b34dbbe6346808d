"""A run on the rooms: `--config=examples/rooms/config.py`."""

from ml_collections import config_dict

from eef_jax import config as config_lib


def get_config(preset: str | None = None) -> config_dict.ConfigDict:
    """EEF with WebShop's nano base, for one to two minutes on two CPU cores."""
    config = config_lib.new(env="examples.rooms.env", method="eef")
    config.expert.trajectories = "runs/rooms_expert"
    config.method.rounds = 1
    config.explore.temperature = 0.5
    config.explore.max_new_tokens = config.evaluate.max_new_tokens = 4
    config.engine.max_context = config.train.seq_len = 128
    config.train.batch_size = 1
    config.train.epochs = 20
    config.train.optimizer.learning_rate = 2e-3
    return config
