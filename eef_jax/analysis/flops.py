"""FLOPs of training counted by hand: what is useful, and what a program should do.

Useful are the products of the model alone, as the field counts them: 6 N D for full tuning, 4 N D
with an adapter (forward, and the gradient of the activations; the base has none). N are parameters
that tokens are multiplied with: not the embedding table's rows, and the head for learned tokens
only. Attention is not in it. The program's own count adds it, adapters and what remat computes
again; the HLO's must agree with it.

Legend: d model, f ffn, v vocabulary.
"""

import dataclasses
import math

import jax

from eef_jax.models import stacking
from eef_jax.models.config import ModelConfig
from eef_jax.models.model import Model

_DOTS = ("none", "dots")  # policies that compute no product with a weight twice


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters by their part in the products.

    Attributes:
        body: of the layers' projections.
        down: of these, the last ones of each layer.
        adapter: of the adapters.
        head: v x d.
    """

    body: int
    down: int
    adapter: int
    head: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLoad:
    """What one device is given in a step.

    Attributes:
        tokens: that go through the layers.
        loss_positions: of these, those whose scores are computed.
        seq_len: tokens of a row.
        share: of each product that it computes (tensor parallelism: 1 / devices).
    """

    tokens: float
    loss_positions: float
    seq_len: int
    share: float = 1.0


def parameter_counts(model: Model) -> ParameterCounts:
    """Count a model's parameters."""
    config = model.config
    per_layer = {
        "attention": config.d_model * config.head_dim * 2 * (config.n_heads + config.n_kv_heads),
        "mlp": 3 * config.d_model * config.d_ff,
    }
    adapter = 0
    if model.lora is not None:
        named = stacking.by_layer(model.trainable)
        adapter = sum(math.prod(variable.shape[-2:]) for variable, _ in named.values())
    return ParameterCounts(
        body=config.n_layers * sum(per_layer.values()),
        down=config.n_layers * config.d_model * config.d_ff,
        adapter=adapter,
        head=config.vocab_size * config.d_model,
    )


def model_flops(model: Model, load: DeviceLoad) -> float:
    """FLOPs of a step that the task asks for, on one device."""
    n = parameter_counts(model)
    times = 6.0 if model.lora is None else 4.0
    return times * load.share * (n.body * load.tokens + n.head * load.loss_positions)


def hardware_flops(
    model: Model, load: DeviceLoad, *, remat: str, attention: float, chunked: bool
) -> float:
    """FLOPs of a step as the program is written, on one device.

    Args:
        model: what is trained.
        load: the device's share.
        remat: policy of the layers.
        attention: FLOPs of one layer's attention scores and mixing, forward, on this device.
        chunked: whether the loss goes through more than one chunk (and computes scores twice).
    """
    n, again = parameter_counts(model), remat not in _DOTS
    frozen = model.lora is not None
    body = 2.0 * n.body * (2 if frozen else 3) + (2.0 * (n.body - n.down) if again else 0.0)
    adapter = 2.0 * n.adapter * (3 + again)
    head = 2.0 * n.head * ((2 if frozen else 3) + chunked)
    layers = load.tokens * (body + adapter) * load.share
    # The way back has five products for the way forth's two; scores are never kept.
    mixing = model.config.n_layers * attention * (1 + (remat != "none") + 2.5)
    return layers + load.loss_positions * head * load.share + mixing


def causal_fraction(length: int, block: int) -> float:
    """Share of the score matrix that a causal kernel of such blocks computes."""
    blocks = max(length // block, 1)
    return (blocks + 1) / (2 * blocks)


def attention_flops(config: ModelConfig, load: DeviceLoad, *, share: float) -> float:
    """FLOPs of one layer's scores and mixing, forward: two products of that share of the matrix."""
    heads = config.n_heads * config.head_dim
    return 4.0 * load.tokens * load.seq_len * heads * share * load.share


def count_parameters(model: Model) -> int:
    """All parameters, the adapter's included."""
    leaves = jax.tree.leaves((model.frozen, model.trainable))
    return sum(math.prod(leaf.shape) for leaf in leaves)
