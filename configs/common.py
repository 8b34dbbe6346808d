"""What all runs share: the sections of a config and their defaults.

A config file returns a `ConfigDict` with these sections; `eef_jax.pipeline` hands each to its part
as keyword arguments. Fields of the env, expert and method sections are those of the plug-in's
`make`.
"""

from ml_collections import config_dict

from eef_jax.errors import ConfigError, did_you_mean


def base() -> config_dict.ConfigDict:
    """Defaults of every section but `env` and `expert`."""
    config = config_dict.ConfigDict()
    config.seed = 0
    config.env = config_dict.ConfigDict({"name": ""})
    config.expert = config_dict.ConfigDict({"name": "", "trajectories": "", "seed": 0})
    config.method = config_dict.ConfigDict(
        {
            "name": "eef",
            "rounds": 3,
            "states": 5,
            # EEF: K rollouts from each state; rft: 1, 6 or "matched" rollouts from the start.
            "rollouts": config_dict.placeholder(object),
            "explore": "failed",
            "recovery": "previous",
            "threshold": config_dict.placeholder(float),  # None: any win makes a state pass
            "choice": "shortest",
            "expert_wins": True,
        }
    )
    config.method.rollouts = 1
    config.model = config_dict.ConfigDict(
        {
            # A Hugging Face folder; "nano:NAME", a base that ships; "": the one for WebShop.
            "path": "",
            # Fields of a config.json: what `eef_jax.compile` compiles where there is no folder.
            "architecture": {},
            "dtype": "float32",
            "param_dtype": "float32",
            "attention": "auto",  # "xla", "splash", "cudnn"; "auto": what the devices have
            "scan_layers": False,  # stack layers: a step compiles one of them, however many
            "quantization": "",  # "int8" or "nf4": the projections of the base, under an adapter
            "adapter": "",  # a PEFT folder to start from; rank, alpha, targets, rslora are its own
            "lora": {
                "enable": True,  # False tunes all parameters
                "rank": 16,
                "alpha": 32.0,
                "dropout": 0.0,
                "targets": "all",  # names or patterns, separated by commas
                "rslora": False,
            },
        }
    )
    config.mesh = config_dict.ConfigDict({"data": -1, "fsdp": 1, "tensor": 1, "context": 1})
    # Where each process plays: its own devices, which hold the whole base once more (but for one
    # process whose two meshes are equal).
    config.rollout_mesh = config_dict.ConfigDict({"data": 1, "fsdp": 1, "tensor": -1, "context": 1})
    config.engine = config_dict.ConfigDict(
        {
            "max_num_seqs": 0,  # sequences generated at once; 0: as many as memory holds, capped
            "max_context": 1024,
            "page_size": 64,  # positions in a page of the KV cache; accelerators want 128
            "num_pages": 0,  # of the KV cache; 0: as many as the rows can fill and memory holds
            # Sizes for a few cores: tokens and conversations of a prefill, its tokens of one
            # conversation, and the tokens that a decode dispatch can generate for each row.
            "prefill_tokens": 384,
            "prefill_seqs": 4,
            "prefill_chunk": 96,
            "decode_steps": 2,
        }
    )
    config.rollout = config_dict.ConfigDict(
        # concurrency: episodes played at once; 0: as many as the policy serves at once.
        {
            "max_steps": 0,
            "concurrency": 0,
            "env_threads": 4,
            "env_timeout_s": 60.0,
            "max_consecutive_invalid": 3,
        }
    )
    config.explore = config_dict.ConfigDict(
        {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 32}
    )
    config.train = config_dict.ConfigDict(
        {
            "init_from": "base",  # each round tunes the base anew, or goes on: "previous"
            "epochs": 3,
            "batch_size": 8,
            "seq_len": 1024,
            # Rows that one device (of the mesh's data and fsdp) computes at a time; 0: all of its
            # rows; "auto": as many as fit its memory.
            "micro_batch": config_dict.placeholder(object),
            "remat": "none",  # what is kept for the way back: "none", "dots", "block", "offload"
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-3,
                "schedule": "cosine",
                "warmup_ratio": 0.05,
                "end_lr_ratio": 0.1,
                "weight_decay": 0.0,
                "clip_norm": 1.0,
            },
        }
    )
    config.train.micro_batch = 0
    config.evaluate = config_dict.ConfigDict(
        {"split": "test", "temperature": 0.0, "max_new_tokens": 32}
    )
    return config


def chat(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Set the sizes for a small chat model that thinks before it acts; returns the config."""
    config.explore.max_new_tokens = 96
    config.evaluate.max_new_tokens = 96
    config.engine.max_num_seqs = 8
    config.engine.max_context = 4096
    config.train.seq_len = 4096
    config.train.batch_size = 1
    config.train.optimizer.learning_rate = 2e-4
    return config


def sharded(
    config: config_dict.ConfigDict, architecture: dict, *, rows: int
) -> config_dict.ConfigDict:
    """Set LoRA in bfloat16 on a slice: weights spread over all chips, a row a chip.

    Args:
        config: changed and returned.
        architecture: fields of the model's config.json.
        rows: of the global batch: as many as chips.
    """
    config.model.architecture = config_dict.ConfigDict(architecture)
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.model.scan_layers = True
    config.mesh.update({"data": 1, "fsdp": -1})
    config.train.batch_size = rows
    config.train.micro_batch = 1
    config.train.remat = "block"
    # Prefills long enough that products take longer than reading the weights.
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


def choose(presets: dict, name: str | None, default: str) -> None:
    """Check that `name` (None: `default`) is one of the presets.

    Raises:
        ConfigError: naming the near ones.
    """
    if (name or default) not in presets:
        raise ConfigError(f"no preset {name!r} in this config: {did_you_mean(str(name), presets)}")
