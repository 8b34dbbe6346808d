"""The loss of supervised fine-tuning: weighted negative log-likelihood.

    loss = sum_i w_i * -log p(token_i | before) / sum_i w_i

Weights are not negative.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float32

from eef_jax.train.losses.base import Learned, Metrics


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sft:
    """Weighted negative log-likelihood in nats, a mean over tokens."""

    @property
    def columns(self) -> tuple[str, ...]:
        return ()

    @property
    def reference(self) -> Literal["", "start", "base"]:
        return ""

    def temperatures(self, learned: Learned) -> None:
        return None

    def denominator(self, learned: Learned) -> Float32[Array, ""]:
        return jnp.sum(learned["weights"])

    def numerator(
        self, logps: Float32[Array, "b n"], learned: Learned
    ) -> tuple[Float32[Array, ""], Metrics]:
        return -jnp.sum(learned["weights"] * logps), {}


make = Sft
