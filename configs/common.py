"""What several config files share. A preset says only what differs from the fields' defaults.

The defaults, units and ranges of all fields: `eef_jax/config/sections.py`, docs/config.md.
"""

from collections.abc import Callable, Mapping

from ml_collections import config_dict

from eef_jax.errors import ConfigError, did_you_mean

Preset = Callable[[], config_dict.ConfigDict]


def choose(presets: Mapping[str, Preset], name: str | None) -> config_dict.ConfigDict:
    """The config of a preset.

    Args:
        presets: functions by preset name; the first one is the default.
        name: the preset's name; None for the default.

    Raises:
        ConfigError: there is no such preset; naming the near ones.
    """
    name = name or next(iter(presets))
    if name not in presets:
        raise ConfigError(f"no preset {name!r} in this config: {did_you_mean(name, presets)}")
    return presets[name]()


def chat(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Set the sizes for a small chat model that thinks before it acts; returns the config.

    Rounds, temperature, cap on actions and learning rate are the defaults: 3, 1.0, the prompt's
    own, and that of an adapter or of full tuning.
    """
    config.explore.max_new_tokens = 96
    config.evaluate.max_new_tokens = 96
    config.engine.max_num_seqs = 8
    config.engine.max_context = 4096
    config.train.seq_len = 4096
    config.train.batch_size = 1
    return config


def one_gpu(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Set LoRA in bfloat16 on one GPU of 24 to 80 GB, for a base of 0.5 to 1.5 billion parameters.

    A training step computes as many rows at a time as memory holds; the cache of the rollouts takes
    what is left.
    """
    config.train.batch_size = 4
    config.train.micro_batch = "auto"
    return _accelerated(config)


def sharded(
    config: config_dict.ConfigDict, architecture: dict, *, rows: int
) -> config_dict.ConfigDict:
    """Set LoRA in bfloat16 on a TPU slice: weights sharded over all chips, one row a chip.

    Args:
        config: changed and returned.
        architecture: fields of the model's config.json.
        rows: packed rows of the global batch: the number of chips.
    """
    config.model.architecture = architecture
    config.mesh.update({"data": 1, "fsdp": -1})
    config.train.batch_size = rows
    config.train.micro_batch = 1
    return _accelerated(config)


def _accelerated(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Set bfloat16, rematerialization and the rollout engine's sizes for an accelerator."""
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.model.scan_layers = True
    config.train.remat = "block"
    # Prefills so long that their matrix products take longer than reading the weights.
    config.engine.update(
        {
            "max_num_seqs": 32,
            "page_size": 128,
            "num_pages": 0,
            "prefill_tokens": 1024,
            "prefill_seqs": 4,
            "prefill_chunk": 512,
            "decode_steps": 8,
        }
    )
    return config
