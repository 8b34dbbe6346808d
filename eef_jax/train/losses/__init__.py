"""Losses, a file each, found by name; what a method asks for is a `types.Loss`."""

from eef_jax import plugins
from eef_jax.errors import ConfigError
from eef_jax.train.losses.base import Loss
from eef_jax.types import Loss as Asked


def make(asked: Asked) -> Loss:
    """The loss that a method asks for.

    Raises:
        ConfigError: there is none of that name, or it has no such option.
    """
    module = plugins.load("train.losses", asked.name)
    try:
        loss: Loss = module.make(**asked.options)
    except TypeError as error:
        raise ConfigError(f"loss {asked.name!r}: {error}") from error
    return loss
