"""How a query scores keys: the part of attention in which model families differ."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """score = cap(scale * q . k), for the keys that are visible.

    Attributes:
        scale: multiplies the products; 1 / sqrt(h) in most models.
        window: number of keys that a query sees, its own and those just before it; None for all.
        softcap: cap(x) = softcap * tanh(x / softcap) bounds the scores (arXiv:2408.00118,
            section 2); None for no bound.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
