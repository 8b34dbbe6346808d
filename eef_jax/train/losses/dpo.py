"""Direct preference optimization (arXiv 2305.18290) of whole trajectories, as in ETO (2403.02502).

    loss = mean over pairs of -log sigmoid(margin)
    margin = beta * (sum_i w_i (log p_i - log ref_i) of the preferred side - the same of the other)

The sums are over a side's learned tokens; the column `advantages` is 1 on the preferred side and -1
on the other. The sides of a pair stand next to each other in a row, the preferred one first.
Learned tokens whose advantage is 0 (observations, other data) add their weighted negative
log-likelihood; an example counts as its mean weight where a pair counts as 1.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from eef_jax.train.losses.base import REFERENCE, Learned, Metrics, mean_weights, sum_by_example


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dpo:
    """The loss of preference pairs.

    Attributes:
        beta: strength of the pull towards the reference, that is the weights a round starts from.
    """

    beta: float = 0.1

    @property
    def columns(self) -> tuple[str, ...]:
        return "advantages", REFERENCE

    @property
    def reference(self) -> Literal["", "start", "base"]:
        return "start"

    def temperatures(self, learned: Learned) -> None:
        return None

    def denominator(self, learned: Learned) -> Float32[Array, ""]:
        return jnp.sum(_preferred(learned), dtype=jnp.float32) + jnp.sum(_sft_weights(learned))

    def numerator(
        self, logps: Float32[Array, "b n"], learned: Learned
    ) -> tuple[Float32[Array, ""], Metrics]:
        signed = learned["weights"] * learned["advantages"] * (logps - learned[REFERENCE])
        sides = self.beta * sum_by_example(signed, learned["segment_ids"])
        # The side after a preferred one is the other of its pair, whose sum has the sign -1.
        margins = sides + jnp.pad(sides[:, 1:], ((0, 0), (0, 1)))
        preferred = _preferred(learned)
        pairs = jnp.sum(preferred, dtype=jnp.float32)
        total = -jnp.sum(jnp.where(preferred, jax.nn.log_sigmoid(margins), 0.0))
        total -= jnp.sum(_sft_weights(learned) * logps)
        metrics: Metrics = {
            "margin": (jnp.sum(jnp.where(preferred, margins, 0.0)), pairs),
            "accuracy": (jnp.sum(preferred & (margins > 0), dtype=jnp.float32), pairs),
        }
        return total, metrics


def _preferred(learned: Learned) -> Bool[Array, "b s"]:
    """Whether an example of a row is the preferred side of a pair."""
    counted = (learned["advantages"] > 0) & (learned["weights"] != 0)
    return sum_by_example(counted.astype(jnp.float32), learned["segment_ids"]) > 0


def _sft_weights(learned: Learned) -> Float32[Array, "b n"]:
    unpaired = learned["advantages"] == 0
    return mean_weights(learned["weights"], unpaired, learned["segment_ids"])


make = Dpo
