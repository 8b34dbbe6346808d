"""A config to copy: `cp configs/template.py my_config.py`, then `--config=my_config.py`.

As it stands it tunes a small chat model on WebShop's embedded catalogue with the scripted expert;
docs/configs.md says what to change for your own environment, trajectories and model.
"""

from ml_collections import config_dict

from eef_jax import config as config_lib


def get_config(preset: str | None = None) -> config_dict.ConfigDict:
    """The config; a preset is what stands after the colon of `--config=my_config.py:PRESET`."""
    # Every field at its default. Dotted names take plug-ins from outside the tree.
    config = config_lib.new(env="webshop", expert="webshop", method="eef")

    # The environment's own fields.
    config.env.prompt = "react"
    config.env.train_tasks = 300

    # Trajectories of an expert that already played, instead of playing:
    # config.expert.trajectories = "my_expert/trajectories.jsonl"

    # A Hugging Face folder; also --config.model.path=FOLDER.
    config.model.path = "SmolLM2-135M-Instruct"
    config.model.dtype = "bfloat16"  # float32 on CPUs
    config.model.param_dtype = "bfloat16"

    # The longest conversation, in tokens, and the rows that training packs conversations into.
    config.engine.max_context = 4096
    config.train.seq_len = 4096
    config.train.batch_size = 4
    config.train.micro_batch = "auto"  # as many rows at a time as memory holds
    config.train.remat = "block"

    # Longer than the longest thought and action.
    config.explore.max_new_tokens = 96
    config.evaluate.max_new_tokens = 96
    return config
