"""Experts: policies that play the trajectories to learn from."""

from eef_jax import plugins
from eef_jax.config.sections import Expert


def plays_held_out(expert: Expert) -> bool:
    """Whether an expert plays the evaluation split: not on somebody's bill without being asked.

    Args:
        expert: the config's section; one that names no file of trajectories.
    """
    if expert.evaluate == "auto":
        return not getattr(plugins.load("experts", expert.name), "PAID", False)
    return expert.evaluate == "yes"
