"""Analytic FLOPs of a training step: model FLOPs (for MFU) and hardware FLOPs.

Model FLOPs count the matrix products of the model alone: 6 N D for full tuning, 4 N D with an
adapter (the forward pass and the gradient of the activations; the frozen base has no weight
gradient). N is the number of parameters that tokens are multiplied with: without the embedding
table, and with the head for learned tokens only. Attention is left out. Hardware FLOPs add
attention, adapters and what rematerialization recomputes; the count from the HLO must agree.

Legend: d model, f ffn, v vocabulary.
"""

import dataclasses
import math

import jax

from eef_jax.models import stacking
from eef_jax.models.config import ModelConfig
from eef_jax.models.model import Model

_DOTS_SAVED = ("none", "dots")  # remat policies that recompute no product with a weight


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters that take part in matrix products.

    Attributes:
        body: parameters of all projections in the layers.
        down: of these, those of the MLPs' down projections.
        adapter: parameters of the adapter.
        head: parameters of the output head, v x d.
    """

    body: int
    down: int
    adapter: int
    head: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLoad:
    """One device's share of a training step.

    Attributes:
        tokens: tokens that pass through the layers.
        loss_positions: of these, the positions whose logits are computed.
        seq_len: tokens per row.
        share: fraction of each product that it computes: 1 / tensor parallelism.
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
    """Model FLOPs of a step on one device: what the task itself requires."""
    n = parameter_counts(model)
    per_parameter = 6.0 if model.lora is None else 4.0
    return per_parameter * load.share * (n.body * load.tokens + n.head * load.loss_positions)


def hardware_flops(
    model: Model, load: DeviceLoad, *, remat: str, attention: float, chunked: bool
) -> float:
    """FLOPs of a step as the program executes it, on one device.

    Args:
        model: the model that is trained; may be abstract.
        load: the device's share of the step.
        remat: rematerialization policy of the layers, a name in `models.remat.POLICIES`.
        attention: forward FLOPs of one layer's attention on this device (`attention_flops`).
        chunked: whether the loss takes more than one chunk, and so recomputes the logits.
    """
    n, recomputed = parameter_counts(model), remat not in _DOTS_SAVED
    frozen = model.lora is not None
    body = 2.0 * n.body * (2 if frozen else 3)
    # The result of the down projection is the next layer's saved input: it is not recomputed.
    body += 2.0 * (n.body - n.down) if recomputed else 0.0
    adapter = 2.0 * n.adapter * (3 + recomputed)
    head = 2.0 * n.head * ((2 if frozen else 3) + chunked)
    layers = load.tokens * (body + adapter) * load.share
    # Attention's backward pass has five products to the forward pass's two: it recomputes the
    # scores, which are never stored.
    attention_total = model.config.n_layers * attention * (1 + (remat != "none") + 2.5)
    return layers + load.loss_positions * head * load.share + attention_total


def causal_fraction(length: int, block: int) -> float:
    """Fraction of the score matrix that a causal kernel with square blocks computes."""
    blocks = max(length // block, 1)
    return (blocks + 1) / (2 * blocks)


def attention_flops(config: ModelConfig, load: DeviceLoad, *, share: float) -> float:
    """Forward FLOPs of one layer's attention: the two products QK and PV.

    Args:
        config: the model's shape.
        load: the device's share of the step.
        share: fraction of the score matrix that is computed (`causal_fraction`).
    """
    heads = config.n_heads * config.head_dim
    return 4.0 * load.tokens * load.seq_len * heads * share * load.share


def count_parameters(model: Model) -> int:
    """Number of parameters, the adapter's included."""
    leaves = jax.tree.leaves((model.frozen, model.trainable))
    return sum(math.prod(leaf.shape) for leaf in leaves)
