"""Where a config comes from: a name of those that ship, or a file.

Those that ship are the modules of `eef_jax.configs`, which is the folder `configs/` of a checkout.
"""

import contextlib
import importlib.util
import pathlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from eef_jax.errors import ConfigError, did_you_mean


def values_of(source: str) -> dict[str, Any]:
    """What a config's `get_config` returns, as plain values.

    Args:
        source: `NAME[:PRESET]` of a config that ships, `FILE.py[:PRESET]` of any other.

    Raises:
        ConfigError: there is no such config, or the file is not one.
    """
    name, _, preset = source.partition(":")
    try:
        with _neighbours_of(name):
            made = _get_config(name)(preset or None)
    except (AttributeError, KeyError) as error:  # a field that a preset sets and nothing declares
        raise ConfigError(f"{source}: {error.args[0] if error.args else error}") from error
    values: dict[str, Any] = made.to_dict() if hasattr(made, "to_dict") else dict(made)
    return values


def shipped() -> dict[str, ModuleType]:
    """The configs that ship, by name: modules of `eef_jax.configs` with a `get_config`."""
    package = importlib.import_module("eef_jax.configs")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "get_config")}


def _get_config(name: str) -> Callable[[str | None], Any]:
    """The function of a config, by the config's name or file."""
    if name.isidentifier():
        known = shipped()
        if name not in known:
            raise ConfigError(
                f"no config {name!r} ships: {did_you_mean(name, known)}; your own is "
                "--config=FILE.py[:PRESET]"
            )
        module = known[name]
    else:
        module = _run_file(name)
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError(f"{name} has no function get_config(preset)")
    get_config: Callable[[str | None], Any] = module.get_config
    return get_config


def _run_file(name: str) -> ModuleType:
    path = pathlib.Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"there is no config file {name!r}: expected --config=FILE.py[:PRESET], or the name of "
            f"one that ships: {', '.join(shipped())}"
        )
    spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:  # also for bytes that are not UTF-8
        line = f", line {error.lineno}" if error.lineno else ""
        raise ConfigError(f"{error.filename or name}{line} is not Python: {error.msg}") from error
    return module


@contextlib.contextmanager
def _neighbours_of(name: str) -> Iterator[None]:
    """Let a file import its neighbours as `FOLDER.module`, wherever the command is started."""
    root = str(pathlib.Path(name).expanduser().resolve().parent.parent)
    if name.isidentifier() or root in sys.path:
        yield
        return
    sys.path.insert(0, root)
    try:
        yield
    finally:
        sys.path.remove(root)
