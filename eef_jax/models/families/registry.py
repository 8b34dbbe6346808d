"""Model families by Hugging Face `model_type`: modules of this package that declare `MODEL_TYPES`.

To add a family, add one file; there is no list to edit.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from eef_jax.errors import ConfigError, did_you_mean


def families() -> dict[str, ModuleType]:
    """Map each served Hugging Face `model_type` to its family module."""
    found: dict[str, ModuleType] = {}
    package: Any = importlib.import_module("eef_jax.models.families")
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"eef_jax.models.families.{info.name}")
        for model_type in getattr(module, "MODEL_TYPES", ()):
            found[model_type] = module
    return found


def family(model_type: str) -> ModuleType:
    """Return the module that serves `model_type`.

    Raises:
        ConfigError: when no family file declares it.
    """
    known = families()
    if model_type not in known:
        raise ConfigError(
            f"model_type {model_type!r} is served by no family file: "
            f"{did_you_mean(model_type, known)}; "
            "add one to eef_jax/models/families that declares MODEL_TYPES"
        )
    return known[model_type]
