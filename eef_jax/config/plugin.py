"""Sections of plug-ins: the dataclass `Config` of an environment's, expert's or method's module."""

import dataclasses
import inspect
from typing import Any

from eef_jax import plugins
from eef_jax.config import fields
from eef_jax.config.sections import Expert, Plugin
from eef_jax.errors import ConfigError

FAMILIES = {"env": "envs", "expert": "experts", "method": "methods"}  # section -> family


def declared(section: str, name: str) -> Any:
    """The dataclass that declares a plug-in's fields; None for no plug-in ("").

    Raises:
        ConfigError: there is no such plug-in, or it declares no section.
    """
    if not name:
        return None
    module = plugins.load(FAMILIES[section], name)
    config = getattr(module, "Config", None)
    if not (inspect.isclass(config) and dataclasses.is_dataclass(config)):
        raise ConfigError(
            f"{module.__name__} declares no config section: it needs a frozen dataclass `Config` "
            "(without fields if it has none), which `make` is called with"
        )
    return config


def common(section: str) -> dict[str, fields.Field]:
    """Fields that the section has whatever the plug-in."""
    kind = Expert if section == "expert" else Plugin
    return {one.name: one for one in fields.fields(kind) if one.name != "options"}


def make(section: str, plugin: Plugin, **context: Any) -> Any:
    """Make a plug-in.

    Args:
        section: `env`, `expert` or `method`.
        plugin: its name and options.
        **context: further arguments of the family's `make`.
    """
    return plugins.load(FAMILIES[section], plugin.name).make(plugin.options, **context)
