"""The optimizer by name: schedule, clipping and weight decay from optax."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from eef_jax.config.sections import OptimizerConfig
from eef_jax.errors import ConfigError, did_you_mean


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step, for a run of `steps` steps.

    Raises:
        ConfigError: for an unknown schedule.
    """
    warmup = round(config.warmup_ratio * steps)
    peak, rest = config.learning_rate, max(steps - warmup, 1)
    shapes = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, peak * config.end_lr_ratio, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, alpha=config.end_lr_ratio),
    }
    if config.schedule not in shapes:
        raise ConfigError(
            f"unknown schedule {config.schedule!r}: {did_you_mean(config.schedule, shapes)}"
        )
    after = shapes[config.schedule]()
    if not warmup:
        return after
    # The first step's rate is peak / (warmup + 1): at 0 the step would change nothing.
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, after], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Build the optimizer for a run of `steps` steps.

    Raises:
        ConfigError: for an unknown name or schedule, or weight decay with an optimizer without it.
    """
    rate = make_schedule(config, steps)
    known = _optimizers()
    if config.name not in known:
        raise ConfigError(f"unknown optimizer {config.name!r}: {did_you_mean(config.name, known)}")
    make = known[config.name]
    settings: dict[str, Any] = {
        "b1": config.b1,
        "b2": config.b2,
        "weight_decay": config.weight_decay,
    }
    if config.name == "sgd":
        settings = {"momentum": config.b1 or None}
    accepted = inspect.signature(make).parameters
    kwargs = {name: value for name, value in settings.items() if name in accepted}
    if "weight_decay" in kwargs and "mask" in accepted:
        kwargs["mask"] = _matrices
    if config.weight_decay and "weight_decay" not in kwargs:
        raise ConfigError(
            f"optimizer {config.name!r} has no weight decay, but weight_decay = "
            f"{config.weight_decay}: set it to 0 or use adamw"
        )
    optimizer = make(learning_rate=rate, **kwargs)
    if config.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    return optimizer


@functools.cache
def _optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """The optimizers of optax that require only a learning rate, by name."""
    # Found by their signatures, so that new ones of optax can be used without a change here.
    found: dict[str, Callable[..., optax.GradientTransformation]] = {}
    for name, make in vars(optax).items():
        if not inspect.isfunction(make) or name.startswith("_"):
            continue
        parameters = inspect.signature(make).parameters
        required = [p.name for p in parameters.values() if p.default is p.empty]
        searches = {"linesearch", "f_min"} & set(parameters)  # they need the loss function
        if "learning_rate" in parameters and required in ([], ["learning_rate"]) and not searches:
            found[name] = make
    return found


def _matrices(params: Any) -> Any:
    """Which parameters decay: matrices, but neither norms nor biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
