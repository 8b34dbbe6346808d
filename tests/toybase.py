"""A random base of one narrow layer with WebShop's tokenizer, and a run's config for it."""

import shutil

import tokenizers

from eef_jax import bases
from eef_jax import config as config_lib
from eef_jax.configs import webshop as configs
from eef_jax.models import build
from eef_jax.models.config import ModelConfig
from eef_jax.models.huggingface import folder as hf

# The tiny preset as a run of seconds, for command lines.
SMALL = {
    "env.train_tasks": 6,
    "env.test_tasks": 3,
    "env.max_steps": 4,
    "engine.max_num_seqs": 4,
    "engine.max_context": 512,
    "explore.max_new_tokens": 2,
    "evaluate.max_new_tokens": 2,
    "train.batch_size": 4,
}


def make(folder):
    """Write the base into a folder; returns the folder."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{bases.WEBSHOP}/{name}", folder)
    size = tokenizers.Tokenizer.from_file(f"{bases.WEBSHOP}/tokenizer.json").get_vocab_size()
    shape = ModelConfig(
        vocab_size=size, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8, d_ff=16
    )
    hf.save(build.init(shape), folder)
    return folder


def config(folder, *overrides):
    """A short run on the embedded shop: six train tasks, two test tasks, one round."""
    values = configs.get_config("tiny")
    values.model.path = str(folder)
    values.env.train_tasks, values.env.test_tasks, values.env.max_steps = 6, 2, 4
    values.engine.max_num_seqs, values.engine.max_context = 8, 512
    values.engine.num_pages = 0
    values.explore.max_new_tokens = values.evaluate.max_new_tokens = 2
    values.mesh.data = 8
    values.train.batch_size = 8
    return config_lib.override(values.to_dict(), overrides)
