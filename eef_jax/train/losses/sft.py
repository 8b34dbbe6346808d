"""The loss of supervised fine-tuning: weighted negative log-likelihood.

    loss = sum_i w_i * -log p(token_i | before) / sum_i w_i

Only the numerator is computed here, so that the quotient can be taken over a whole global batch,
however it is split over devices and micro-batches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from eef_jax.sharding import constrain

Head = Callable[[Float[Array, "b c d"]], Float[Array, "b c v"]]


def weighted_nll(
    head: Head,
    hidden: Float[Array, "b t d"],
    tokens: Int[Array, "b t"],
    weights: Float[Array, "b t"],
    loss_positions: Int[Array, "b n"],
    *,
    chunk: int = 128,
) -> Float[Array, ""]:
    """Sum of weighted negative log-likelihoods, without holding the logits of all tokens.

    Args:
        head: maps hidden states to float32 logits.
        hidden: hidden states; `hidden[:, i]` predicts `tokens[:, i + 1]`.
        tokens: token ids.
        weights: weight of predicting each token; 0 in column 0.
        loss_positions: columns of the tokens with a weight; 0 where unused.
        chunk: loss positions of a row whose logits exist at a time.

    Returns:
        The sum of weighted losses in nats; divide by the sum of weights.
    """
    # In an agent's conversation one token in ten has a weight. The hidden states before them are
    # gathered first, so that the product with the vocabulary, the largest of a small model, is
    # computed for these only.
    n = loss_positions.shape[1]
    chunks = -(-n // chunk)
    loss_positions = jnp.pad(loss_positions, ((0, 0), (0, -n % chunks)))  # column 0: weight 0
    labels = jnp.take_along_axis(tokens, loss_positions, axis=1)
    scales = jnp.take_along_axis(weights, loss_positions, axis=1)
    before = jnp.maximum(loss_positions - 1, 0)
    hidden = jnp.take_along_axis(hidden, before[:, :, None], axis=1)  # [b, n, d]
    if chunks == 1:
        return _nll(head, hidden, labels, scales)
    parts = [
        constrain(
            jnp.moveaxis(x.reshape(x.shape[0], chunks, -1, *x.shape[2:]), 1, 0),
            (None, "batch", "sequence") + (None,) * (x.ndim - 2),
        )
        for x in (hidden, labels, scales)
    ]

    # Logits are recomputed in the backward pass, a chunk at a time, instead of saved.
    @jax.checkpoint
    def add(
        total: Float[Array, ""], part: list[Shaped[Array, "b c ..."]]
    ) -> tuple[Float[Array, ""], None]:
        return total + _nll(head, *part), None

    return jax.lax.scan(add, jnp.zeros((), jnp.float32), parts)[0]


def _nll(
    head: Head,
    hidden: Float[Array, "b c d"],
    labels: Int[Array, "b c"],
    scales: Float[Array, "b c"],
) -> Float[Array, ""]:
    logits = head(hidden)  # [b, c, v]
    picked = jnp.take_along_axis(logits, labels[:, :, None], axis=-1)[:, :, 0]
    return jnp.sum(scales * (jax.nn.logsumexp(logits, axis=-1) - picked))
