"""A tiny random decoder for engine tests, and engines over it."""

import contextlib
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from eef_jax.config.sections import EngineConfig, LoraConfig
from eef_jax.engine.engine import Engine
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.scheduler import Scheduler
from eef_jax.models import build
from eef_jax.models.config import ModelConfig, ModelOptions
from eef_jax.models.model import Model, merge

VOCAB = 320
CONFIG = EngineConfig(
    max_num_seqs=4,
    max_context=64,
    page_size=16,
    num_pages=24,
    prefill_tokens=32,
    prefill_seqs=4,
    prefill_chunk=8,
    decode_steps=2,
)
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=6)
SAMPLED = SamplingParams(temperature=0.7, max_new_tokens=6)
SIZES = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 8,
    "d_ff": 64,
    "max_positions": 64,
}


def model(seed: int = 0, *, adapted: bool = True, **sizes: int) -> Model:
    """Two layers, grouped heads, and an adapter without zero weights (or no adapter)."""
    config = ModelConfig(**SIZES | sizes)
    lora = LoraConfig(rank=4, alpha=8.0) if adapted else None
    made = build.init(config, ModelOptions(lora=lora), seed=seed)
    # Spread out, so that the best two logits are never close.
    spread = lambda x: x + 0.3 * jax.random.normal(jax.random.key(seed + 1), x.shape)
    return Model(
        config=made.config,
        lora=made.lora,
        graphdef=made.graphdef,
        frozen=made.frozen,
        trainable=jax.tree.map(spread, made.trainable),
    )


def engine(made: Model, *, stop_ids=(), config: EngineConfig = CONFIG, scheduler=None) -> Engine:
    """An engine with few rows and short pages."""
    return Engine(made, stop_ids=stop_ids, config=config, scheduler=scheduler)


def generate(engine: Engine, ids, sampling: SamplingParams = GREEDY, key=(0, 0)):
    """The result of one request in its own session."""
    return engine.open(ids).generate(sampling, key).result()


def prompt(seed: int, n: int) -> list[int]:
    """Random token ids."""
    return np.random.default_rng(seed).integers(0, VOCAB, n).tolist()


@contextlib.contextmanager
def paused(scheduler: Scheduler):
    """Requests submitted to an engine inside this block start together, at its end."""
    step = scheduler.step

    def idle() -> bool:
        time.sleep(0.001)
        return scheduler.busy  # if true, the engine's thread calls `step` again

    scheduler.step = idle
    try:
        yield
    finally:
        scheduler.step = step


def logits(made: Model, ids) -> np.ndarray:
    """Logits [t, v] of a full forward pass without a cache."""
    padded = np.zeros((1, 64), np.int32)  # one shape, compiled once
    padded[0, : len(ids)] = ids
    return np.asarray(_forward(made.graphdef, made.frozen, made.trainable, padded)[0, : len(ids)])


@functools.partial(jax.jit, static_argnums=0)
def _forward(graphdef, frozen, trainable, tokens):
    decoder = merge(graphdef, frozen, trainable)
    positions = jnp.arange(tokens.shape[1])[None]
    return decoder.logits(decoder(tokens, positions, jnp.ones_like(tokens)))
