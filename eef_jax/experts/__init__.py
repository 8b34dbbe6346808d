"""Experts: policies that play the trajectories to learn from."""

from eef_jax import plugins
from eef_jax.config.sections import Expert


def plays_held_out(expert: Expert) -> bool:
    """Whether an expert plays the evaluation split: not on somebody's bill without being asked.

    Args:
        expert: the config's section; one that names no file of trajectories.
    """
    return not is_paid(expert) if expert.evaluate == "auto" else expert.evaluate == "yes"


def is_paid(expert: Expert) -> bool:
    """Whether an expert's answers may cost money: its module says `PAID = True`."""
    return bool(getattr(plugins.load("experts", expert.name), "PAID", False))
