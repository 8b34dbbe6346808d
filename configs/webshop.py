"""EEF on WebShop: `python -m eef_jax.main --config=configs/webshop.py[:PRESET]`.

Paper: 62.0 % win rate with two experts, 58.4 % with one (Llama-3-8B, 500 test tasks).

| preset | what | where |
|---|---|---|
| demo (default) | embedded catalogue, scripted expert, nano base | 2 CPU cores |
| tiny | the same with a few tasks and one round, for tests | 2 CPU cores, a minute |
| official | the demo on the official files, given by path (below) | 2 CPU cores |
| smollm2 | SmolLM2-135M from `--config.model.path` | CPU for a few goals, else one accelerator |
| served | smollm2, its expert behind an OpenAI-compatible server | the same |
| one_gpu | a chat model of 0.5-1.5B from `--config.model.path` | one GPU, 24-80 GB |
| qwen2_5_1_5b | Qwen2.5-1.5B-Instruct from `--config.model.path` | v5e:2x2 |
| llama3_8b | Llama-3.1-8B-Instruct from `--config.model.path` | v5e:4x4, v6e:4x4 |
| llama3_70b | Llama-3.1-70B-Instruct from `--config.model.path` | v6e:16x16, v5p:4x4x8 |

The last three can be compiled ahead of time without weights (docs/scaling.md). They train one row
per chip at a time, so they run on any larger slice with `--config.train.batch_size=CHIPS`.

The official products: `--config.env.data_dir=FOLDER`, a folder that
`python -m eef_jax.envs.webshop.import_data` made; or, imported at each start,
`--config.env.products=... --config.env.attributes=... --config.env.title_nouns=...`.
"""

from ml_collections import config_dict

from eef_jax import config as config_lib
from eef_jax.configs import architectures, common


def get_config(preset: str | None = None) -> config_dict.ConfigDict:
    """The config of a preset."""
    presets = {
        "demo": demo,
        "tiny": tiny,
        "official": official,
        "smollm2": smollm2,
        "served": served,
        "one_gpu": one_gpu,
        "qwen2_5_1_5b": qwen2_5_1_5b,
        "llama3_8b": llama3_8b,
        "llama3_70b": llama3_70b,
    }
    return common.choose(presets, preset)


def demo(expert: str = "webshop") -> config_dict.ConfigDict:
    """Embedded catalogue, scripted expert, nano base.

    Args:
        expert: another expert to take instead.
    """
    config = config_lib.new(env="webshop", expert=expert, method="eef")
    config.env.max_steps = 12
    config.method.rounds = 2
    # A decode step on CPU reads the whole cache; episodes fill seven pages on average.
    config.engine.num_pages = 512
    config.explore.temperature = 0.8
    config.train.seq_len = 768
    config.train.batch_size = 4
    config.train.epochs = 2
    config.train.optimizer.learning_rate = 2e-3
    return config


def tiny() -> config_dict.ConfigDict:
    """A few tasks, one round."""
    config = demo()
    config.env.train_tasks = 40
    config.env.test_tasks = 20
    config.method.rounds = 1
    config.train.epochs = 1
    return config


def official() -> config_dict.ConfigDict:
    """The official products by path; their pages are six times longer than the embedded ones.

    The expert shops with care and slips late, as an agent does: docs/experts.md says how well.
    """
    config = demo("webshop_careful")
    config.env.catalogue = "official"
    config.env.max_steps = 0  # the prompt's own; 12, the demo's, end most episodes too early
    config.engine.max_num_seqs = 32
    config.engine.max_context = 2048
    config.train.seq_len = 2048
    config.train.batch_size = 2
    return config


def smollm2(expert: str = "webshop") -> config_dict.ConfigDict:
    """A real small chat model from a Hugging Face folder; needs `--config.model.path=FOLDER`.

    Args:
        expert: another expert to take instead.
    """
    config = common.chat(config_lib.new(env="webshop", expert=expert, method="eef"))
    config.env.prompt = "react"
    return config


def served() -> config_dict.ConfigDict:
    """`smollm2` with an expert behind an OpenAI-compatible server, as GPT-4 is in the paper.

    The key is taken from the environment; see `eef_jax.experts.openai` for the terms of use.
    """
    return smollm2("openai")


def one_gpu() -> config_dict.ConfigDict:
    """A small chat model on one GPU; needs `--config.model.path=FOLDER`."""
    return common.one_gpu(smollm2())


def qwen2_5_1_5b() -> config_dict.ConfigDict:
    """Qwen2.5-1.5B-Instruct on four chips of 16 GB; needs `--config.model.path=FOLDER`."""
    return common.sharded(smollm2(), architectures.QWEN2_5_1_5B, rows=4)


def llama3_8b() -> config_dict.ConfigDict:
    """Llama-3.1-8B-Instruct on 16 chips; needs `--config.model.path=FOLDER`."""
    return common.sharded(smollm2(), architectures.LLAMA3_8B, rows=16)


def llama3_70b() -> config_dict.ConfigDict:
    """Llama-3.1-70B-Instruct on 256 chips of 32 GB; needs `--config.model.path=FOLDER`."""
    return common.sharded(smollm2(), architectures.LLAMA3_70B, rows=256)
