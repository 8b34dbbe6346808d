"""Policy gradient on sampled tokens with signed advantages: the clipped surrogate of PPO and GRPO.

    ratio_i = p(token_i) / p_sampled(token_i), both at the temperature it was sampled at
    loss_i = -min(ratio_i A_i, clip(ratio_i, 1 - clip_low, 1 + clip_high) A_i) + kl * KL_i
    KL_i = q_i - log q_i - 1 with q_i = p_base(token_i) / p(token_i)   (Schulman's k3)

PPO: arXiv 1707.06347, GRPO: 2402.03300, separate bounds and means over tokens: DAPO, 2503.14476.
The ratio is that of whole distributions: what was sampled with top-p or top-k has none and is
refused before the run. Learned tokens that were not sampled by the policy (temperature 0: an
expert's, observations, other data) add their negative log-likelihood and nothing else.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from eef_jax.train.losses.base import REFERENCE, Learned, Metrics, mean_weights


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pg:
    """The clipped policy-gradient loss.

    Attributes:
        clip_low: how far below 1 a ratio still has a gradient.
        clip_high: how far above 1.
        normalization: `token`: the weighted mean over all tokens of a batch; `sequence`: the mean
            over examples of the means over their tokens, sampled tokens and others apart.
        kl: weight of the divergence from the base; 0: none is computed.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    normalization: Literal["token", "sequence"] = "token"
    kl: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        own = ("advantages", "sampled_logps", "temperatures")
        return (*own, REFERENCE) if self.kl else own

    @property
    def reference(self) -> Literal["", "start", "base"]:
        return "base" if self.kl else ""

    def temperatures(self, learned: Learned) -> Float[Array, "b n"]:
        return jnp.where(_sampled(learned), learned["temperatures"], 1.0)

    def denominator(self, learned: Learned) -> Float32[Array, ""]:
        return jnp.sum(self._weights(learned))

    def numerator(
        self, logps: Float32[Array, "b n"], learned: Learned
    ) -> tuple[Float32[Array, ""], Metrics]:
        sampled, advantages = _sampled(learned), learned["advantages"]
        ratios = jnp.exp(jnp.where(sampled, logps - learned["sampled_logps"], 0.0))
        bounded = jnp.clip(ratios, 1 - self.clip_low, 1 + self.clip_high)
        losses = -jnp.minimum(ratios * advantages, bounded * advantages)
        metrics: Metrics = {}
        count = jnp.sum(sampled, dtype=jnp.float32)
        clipped = sampled & (bounded * advantages < ratios * advantages)
        metrics["ratio"] = jnp.sum(jnp.where(sampled, ratios, 0.0)), count
        metrics["clipped"] = jnp.sum(clipped, dtype=jnp.float32), count
        if self.kl:
            log_q = jnp.where(sampled, learned[REFERENCE] - logps, 0.0)
            divergence = jnp.exp(log_q) - log_q - 1
            losses += self.kl * divergence
            metrics["kl"] = jnp.sum(divergence), count
        losses = jnp.where(sampled, losses, -logps)
        return jnp.sum(self._weights(learned) * losses), metrics

    def _weights(self, learned: Learned) -> Float32[Array, "b n"]:
        weights, segment_ids = learned["weights"], learned["segment_ids"]
        if self.normalization == "token":
            return weights
        sampled = _sampled(learned)
        means = mean_weights(weights, sampled, segment_ids)
        return means + mean_weights(weights, ~sampled, segment_ids)


def _sampled(learned: Learned) -> Bool[Array, "b n"]:
    """Whether a token is learned by the policy gradient."""
    return (learned["temperatures"] > 0) & (learned["weights"] != 0)


make = Pg
