"""The loss protocol, and what losses share: log-probabilities of learned tokens, sums by example.

A loss is one module in `eef_jax/train/losses/` that exports `make(**options) -> Loss`. It is a
function of the log-probabilities of the learned tokens and of the batch's columns at these tokens,
so all losses train on the same packed batches.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped

from eef_jax.sharding import constrain

Head = Callable[[Float[Array, "b c d"]], Float[Array, "b c v"]]
# The weights, segment ids and the loss's columns at a batch's loss positions, by name. Unused
# positions have the weight 0.
Learned = Mapping[str, Shaped[Array, "b n"]]
# A sum and the count that it is divided by, by the metric's name.
Metrics = dict[str, tuple[Float32[Array, ""], Float32[Array, ""]]]

REFERENCE = "reference_logps"  # the column that `learner.reference` computes


@runtime_checkable
class Loss(Protocol):
    """A loss of a batch: a numerator over a denominator, both sums over the global batch.

    Only the numerator depends on the parameters, so that the quotient can be taken over a whole
    global batch, however it is split over devices and micro-batches. Examples that depend on each
    other stand in one row (`types.Example.pair`).
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the examples that it reads."""
        ...

    @property
    def reference(self) -> Literal["", "start", "base"]:
        """Weights behind the column `REFERENCE`: those that the round starts from, or the base."""
        ...

    def temperatures(self, learned: Learned) -> Float[Array, "b n"] | None:
        """What divides the logits of each learned token; None: nothing does."""
        ...

    def denominator(self, learned: Learned) -> Float32[Array, ""]:
        """What the numerator is divided by."""
        ...

    def numerator(
        self, logps: Float32[Array, "b n"], learned: Learned
    ) -> tuple[Float32[Array, ""], Metrics]:
        """The sum to minimize, and metrics.

        Args:
            logps: log-probability of each learned token, in nats.
            learned: weights, segment ids and columns of the same tokens.
        """
        ...


def gather(batch: Mapping[str, Shaped[Array, "b _"]], columns: Sequence[str]) -> Learned:
    """A batch's weights, segment ids and columns at its loss positions."""
    positions = batch["loss_positions"]
    names = ("weights", "segment_ids", *columns)
    return {name: jnp.take_along_axis(batch[name], positions, axis=1) for name in names}


def log_probs(
    head: Head,
    hidden: Float[Array, "b t d"],
    tokens: Int[Array, "b t"],
    loss_positions: Int[Array, "b n"],
    temperatures: Float[Array, "b n"] | None = None,
    *,
    chunk: int = 128,
) -> Float32[Array, "b n"]:
    """Log-probabilities of learned tokens, without holding the logits of all tokens.

    Args:
        head: maps hidden states to float32 logits.
        hidden: hidden states; `hidden[:, i]` predicts `tokens[:, i + 1]`.
        tokens: token ids.
        loss_positions: columns of the tokens to score; 0 where unused.
        temperatures: divide the logits; None: nothing does.
        chunk: loss positions of a row whose logits exist at a time.
    """
    # In an agent's conversation one token in ten has a weight. The hidden states before them are
    # gathered first, so that the product with the vocabulary, the largest of a small model, is
    # computed for these only.
    n = loss_positions.shape[1]
    chunks = -(-n // chunk)
    loss_positions = jnp.pad(loss_positions, ((0, 0), (0, -n % chunks)))
    labels = jnp.take_along_axis(tokens, loss_positions, axis=1)
    before = jnp.maximum(loss_positions - 1, 0)
    hidden = jnp.take_along_axis(hidden, before[:, :, None], axis=1)  # [b, n, d]
    inputs: list[Shaped[Array, "b n ..."]] = [hidden, labels]
    if temperatures is not None:
        inputs.append(jnp.pad(temperatures, ((0, 0), (0, -n % chunks)), constant_values=1.0))
    if chunks == 1:
        return _log_probs(head, *inputs)
    parts = [
        constrain(
            jnp.moveaxis(x.reshape(x.shape[0], chunks, -1, *x.shape[2:]), 1, 0),
            (None, "batch", "sequence") + (None,) * (x.ndim - 2),
        )
        for x in inputs
    ]

    # Logits are recomputed in the backward pass, a chunk at a time, instead of saved.
    @jax.checkpoint
    def score(
        carry: None, part: list[Shaped[Array, "b c ..."]]
    ) -> tuple[None, Float32[Array, "b c"]]:
        return carry, _log_probs(head, *part)

    scored = jnp.moveaxis(jax.lax.scan(score, None, parts)[1], 0, 1)
    return scored.reshape(scored.shape[0], -1)[:, :n]


def _log_probs(
    head: Head,
    hidden: Float[Array, "b c d"],
    labels: Int[Array, "b c"],
    temperatures: Float[Array, "b c"] | None = None,
) -> Float32[Array, "b c"]:
    logits = head(hidden)  # [b, c, v]
    if temperatures is not None:
        logits = logits / temperatures[:, :, None]
    picked = jnp.take_along_axis(logits, labels[:, :, None], axis=-1)[:, :, 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def sum_by_example(
    values: Float[Array, "b n"], segment_ids: Int[Array, "b n"]
) -> Float[Array, "b s"]:
    """Sums over the learned tokens of each example; s numbers a row's examples, from 1 on."""
    # Every example has a learned token, so a row has n of them at most; 0 and n + 1 stay empty.
    count = segment_ids.shape[1] + 2
    return jax.vmap(lambda x, ids: jax.ops.segment_sum(x, ids, num_segments=count))(
        values, segment_ids
    )


def mean_weights(
    weights: Float[Array, "b n"], mask: Bool[Array, "b n"], segment_ids: Int[Array, "b n"]
) -> Float[Array, "b n"]:
    """The weights of masked tokens, divided by their number in their example; 0 elsewhere.

    With these weights a sum over tokens is a sum over examples of the mean over their tokens.
    """
    mask = mask & (weights != 0)
    counts = sum_by_example(mask.astype(jnp.float32), segment_ids)
    here = jnp.take_along_axis(counts, segment_ids, axis=1)
    return jnp.where(mask, weights / jnp.maximum(here, 1.0), 0.0)
