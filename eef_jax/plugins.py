"""Plug-ins by module name: a name in a family (`envs`, `methods`, ...) to its module.

A plug-in is one module of `eef_jax.<family>` that exports a dataclass `Config`, which declares its
config section, and `make(config, ...)`; a dotted name is a module from outside the tree. There is
no list to edit: the modules of the family's package are the list.
"""

import importlib
import pkgutil
from types import ModuleType

from eef_jax.errors import ConfigError, did_you_mean


def available(family: str) -> tuple[str, ...]:
    """Names of a family's plug-ins in the tree, sorted."""
    package = importlib.import_module(f"eef_jax.{family}")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in found if name != "base" and not name.startswith("_")))


def load(family: str, name: str) -> ModuleType:
    """The module of a plug-in.

    Args:
        family: `envs`, `methods`, `policies` or `experts`.
        name: a module of that family, or a dotted module path from outside the tree.

    Raises:
        ConfigError: no such plug-in, a package it needs is missing, or it exports no `make`.
    """
    path = name if "." in name else f"eef_jax.{family}.{name}"
    if "." not in name and name not in available(family):
        raise ConfigError(
            f"no plug-in {name!r} in eef_jax/{family}: {did_you_mean(name, available(family))}; "
            "a dotted name (my_package.my_module) takes one from outside the tree"
        )
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or "?"
        if path == missing or path.startswith(f"{missing}."):
            raise ConfigError(
                f"{family} plug-in {name!r}: Python finds no module {missing!r}; is its folder on "
                f"PYTHONPATH? In the tree are: {', '.join(available(family))}"
            ) from error
        raise ConfigError(
            f"{family} plug-in {name!r} needs the package {missing!r}, which is not installed: "
            f"pip install it, or the extra of eef-jax that has it (see pyproject.toml)"
        ) from error
    if not callable(getattr(module, "make", None)):
        raise ConfigError(f"{path} is not a plug-in: it has no function make(config, ...)")
    return module
