"""Plug-ins by module name: a name in a family (`envs`, `methods`, ...) to the module's `make`.

A plug-in is one module of `eef_jax.<family>` that exports `make(**section)`; a dotted name is a
module from outside the tree. There is no list to edit: the modules of the family's package are the
list.
"""

import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from eef_jax.errors import ConfigError, did_you_mean


def available(family: str) -> tuple[str, ...]:
    """Names of a family's plug-ins in the tree, sorted."""
    package = importlib.import_module(f"eef_jax.{family}")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in found if name != "base" and not name.startswith("_")))


def load(family: str, name: str) -> Callable[..., Any]:
    """The `make` of a plug-in.

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
    make = getattr(module, "make", None)
    if not callable(make):
        raise ConfigError(f"{path} is no plug-in: it has no function make(**section)")
    return make


def make(family: str, name: str, section: Mapping[str, Any]) -> Any:
    """Make a plug-in from its config section.

    A section may carry fields of the family's other plug-ins, so that changing the name alone
    switches a run over; those are left out. A field that none of them knows is an error.

    Args:
        family: see `load`.
        name: see `load`.
        section: the config's section less its `name`.

    Raises:
        ConfigError: an unknown plug-in or field, or a value the plug-in refuses.
    """
    function = load(family, name)
    known = _fields(function)
    if known is None:
        return function(**section)
    if unknown := set(section) - known:
        for field in sorted(unknown - _fields_elsewhere(family)):
            raise ConfigError(
                f"{family} plug-in {name!r} has no field {field!r}: {did_you_mean(field, known)}"
            )
    return function(**{field: section[field] for field in section if field in known})


def _fields_elsewhere(family: str) -> set[str]:
    """Fields of all plug-ins of a family, as far as they load here (an extra may be missing)."""
    fields: set[str] = set()
    for name in available(family):
        with contextlib.suppress(ConfigError):
            fields |= _fields(load(family, name)) or set()
    return fields


def _fields(function: Callable[..., Any]) -> set[str] | None:
    """Names of a function's arguments; None where it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}
