"""EEF on JAX: tune LLM agents from the useful parts of an expert's failed trajectories.

The host half (types, environments, methods, rollouts) thinks in text and steps; the device half
(models, engine, training) thinks in tokens and weights; `eef_jax.data.encode` stands between.
Importing this package loads neither JAX nor any other heavy library.
"""

__version__ = "0.1.0"
