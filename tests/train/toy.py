"""A tiny model and toy data that the training tests share."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from eef_jax.config.sections import LoraConfig, OptimizerConfig
from eef_jax.data.batches import Batches
from eef_jax.models import build, stacking
from eef_jax.models.config import ModelConfig, ModelOptions
from eef_jax.models.model import Model
from eef_jax.sharding import make_mesh
from eef_jax.train import loop
from eef_jax.train import step as step_lib
from eef_jax.types import Example

CONFIG = ModelConfig(
    vocab_size=64, d_model=16, n_layers=1, n_heads=4, n_kv_heads=4, head_dim=8, d_ff=32
)
LORA = LoraConfig(rank=4, targets=("q_proj", "down_proj"))
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2, warmup_ratio=0.0, schedule="constant", clip_norm=0.0
)


def one_device():
    return make_mesh({}, jax.devices()[:1])


@functools.cache
def model(lora: LoraConfig | None = LORA, scan: bool = False) -> Model:
    if scan:  # what pods train: stacked layers that are computed again in the backward pass
        stacked = build.init(CONFIG, ModelOptions(lora=lora, scan_layers=True, remat="block"))
        trainable = stacking.restack_state(model(lora).trainable, stacked.trainable)
        return dataclasses.replace(stacked, trainable=trainable)
    made = build.init(CONFIG, ModelOptions(lora=lora))
    if lora is None:
        return made
    # A fresh adapter's second half is 0, which hides most gradients: start from a used one.
    rng = np.random.default_rng(9)
    used = jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), made.trainable
    )
    return dataclasses.replace(made, trainable=used)


def examples(count=12, seed=0, longest=16):
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        size = int(rng.integers(4, longest))
        weights = np.where(rng.random(size) < 0.4, rng.choice([0.5, 1.0], size), 0.0)
        weights[-1] = 1.0
        made.append(
            Example(
                id=str(number),
                tokens=rng.integers(1, 64, size).astype(np.int32),
                weights=weights.astype(np.float32),
            )
        )
    return made


def share_steps(patch: pytest.MonkeyPatch) -> None:
    """Let trainings of one model, with one optimizer on one mesh, share a compiled step.

    A step is traced and loaded for a second or two, far longer than a toy trains.
    """
    make, made = step_lib.make_step, {}

    def shared(model, optimizer, **options):
        key = (id(model), id(optimizer), *sorted(options.items()))
        if key not in made:
            step = make(model, optimizer, **options)
            made[key] = step, model, optimizer  # which keeps the ids from being used again
        return made[key][0]

    patch.setattr(step_lib, "make_step", shared)
    patch.setattr(loop, "make_optimizer", functools.cache(loop.make_optimizer))


def batches(**options) -> Batches:
    return Batches(**{"examples": examples(), "batch_size": 8, "seq_len": 16, "seed": 1} | options)


def with_columns(loss, count=12, seed=0, longest=8):
    """Examples with the columns of a loss: pairs and other data, or sampled tokens and others."""
    rng = np.random.default_rng([seed, 5])
    made = []
    for number, example in enumerate(examples(2 * count, seed, longest)):
        learned = example.weights != 0
        logps = np.where(learned, np.log(rng.uniform(0.005, 0.05, learned.size)), 0.0)
        paired = loss.name == "dpo" and number < 1.5 * count
        sampled = learned & (rng.random(learned.size) < 0.7)
        signs = np.full(learned.size, 1.0 - 2 * (number % 2)) if paired else np.zeros(learned.size)
        columns = {
            "advantages": signs if loss.name == "dpo" else np.where(sampled, rng.normal(), 0.0),
            "sampled_logps": np.where(sampled, logps, 0.0),
            "temperatures": np.where(sampled, 0.8, 0.0),
            "reference_logps": logps,
        }
        made.append(
            dataclasses.replace(
                example,
                columns={name: column.astype(np.float32) for name, column in columns.items()},
                pair=f"p{number // 2}" if paired else "",
            )
        )
    return made
