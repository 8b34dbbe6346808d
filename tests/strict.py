"""What tests refuse and runs do not: arrays unlike their annotations, and implicit promotions.

It holds in the tests of the packages that compute with arrays, but for those of kernels: JAX's own
attention promotes. Runs, and command lines that tests start, are without any of it.
"""

import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import beartype
import jax
import jaxtyping
import numpy as np
import optax

# What computes with arrays, and tests of it that are strict.
PACKAGES = ("engine", "kernels", "models", "sharding", "train")
STRICT_TESTS = ("engine", "models", "sharding", "strict", "train")
TESTS = pathlib.Path(__file__).parent


def install() -> None:
    """Prepare this process for `choose`; before the first import of eef_jax."""
    jaxtyping.install_import_hook([f"eef_jax.{name}" for name in PACKAGES], f"{__name__}.check")
    jaxtyping.config.update("jaxtyping_disable", True)  # until a test asks for it
    for name, make in list(vars(optax).items()):
        if inspect.isfunction(make) and "learning_rate" in inspect.signature(make).parameters:
            setattr(optax, name, _promoting(make))


def choose(test: pathlib.Path) -> None:
    """Be strict in a file of `STRICT_TESTS`, and in no other one."""
    tested = test.relative_to(TESTS).parts[0].removeprefix("test_").removesuffix(".py")
    strict = tested in STRICT_TESTS
    jaxtyping.config.update("jaxtyping_disable", not strict)
    jax.config.update("jax_numpy_dtype_promotion", "strict" if strict else "standard")
    jax.config.update("jax_numpy_rank_promotion", "raise" if strict else "allow")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the arguments and the result of each call against their annotations, by beartype.

    Signatures are compiled when they are called first, so that a test pays only for the functions
    that it reaches. A field of a dataclass may also hold something that is not an array: JAX builds
    trees anew from what stands for their arrays (shardings, shapes, placeholders).
    """
    hints = function.__annotations__
    if function.__name__ == "__init__":
        for name, hint in hints.items():
            if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
                hints[name] = hint | _NotAnArray
    # A function inside another one is made anew by each call of that; its signature is not.
    key = (function.__module__, function.__qualname__, *hints.items())

    compiled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            if key not in _compiled:
                _compiled[key] = _beartype(function)
            compiled = _compiled[key]
        return compiled(*args, **kwargs)

    return checked


_beartype = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
_compiled: dict[Any, Callable[..., Any]] = {}


class _ArraysExcluded(type):
    def __instancecheck__(cls, value: object) -> bool:
        return not isinstance(value, jax.Array | np.ndarray)


class _NotAnArray(metaclass=_ArraysExcluded):
    """Anything but an array of JAX or numpy."""


def _promoting(make: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer of optax whose update may promote: optax multiplies floats by step counts."""

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        transformation = make(*args, **kwargs)

        def update(*args: Any, **kwargs: Any) -> Any:
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                return transformation.update(*args, **kwargs)

        return transformation._replace(update=update)

    return made
