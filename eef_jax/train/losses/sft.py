"""What is minimised: the weighted negative log-likelihood of the learned tokens.

    loss = sum_i w_i * -log p(token_i | before) / sum_i w_i

Numerator and denominator are returned apart, so that the quotient can be taken over a whole global
batch, however it is split over devices and micro-batches. Knows hidden states and a head; knows no
model, batch layout or optimizer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eef_jax.sharding import constrain

Head = Callable[[Float[Array, "b c d"]], Float[Array, "b c v"]]


def weighted_nll(
    head: Head,
    hidden: Float[Array, "b t d"],
    tokens: Int[Array, "b t"],
    weights: Float[Array, "b t"],
    targets: Int[Array, "b n"],
    *,
    chunk: int = 128,
) -> Float[Array, ""]:
    """Sum of weighted negative log-likelihoods, without ever holding logits of all tokens.

    The hidden states before the learned tokens are gathered first, so that the product with the
    vocabulary (the largest of a small model) is done for them alone, then `chunk` of each row at a
    time; a chunk's logits are computed again on the way back instead of being kept.

    Args:
        head: hidden states to float32 logits.
        hidden: hidden states; `hidden[:, i]` predicts `tokens[:, i + 1]`.
        tokens: token ids.
        weights: weight of predicting each token; 0 in column 0.
        targets: columns of the learned tokens; 0 where unused (column 0 has weight 0).
        chunk: learned tokens of a row whose logits exist at one time.

    Returns:
        The sum of weighted losses in nats; divide by the sum of weights.
    """
    n = targets.shape[1]
    chunks = -(-n // chunk)
    targets = jnp.pad(targets, ((0, 0), (0, -n % chunks)))  # column 0: weight 0
    labels = jnp.take_along_axis(tokens, targets, axis=1)
    scales = jnp.take_along_axis(weights, targets, axis=1)
    before = jnp.maximum(targets - 1, 0)
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

    @jax.checkpoint
    def add(total: Float[Array, ""], part: list[Array]) -> tuple[Float[Array, ""], None]:
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
