"""From a config's values and flags to a validated `Config`, and back to plain values.

A config file is a Python file with `get_config(preset)`, which returns the `ConfigDict` of `new`
with its own values set (`source` finds and runs it). Flags `--config.SECTION.FIELD=VALUE` come on
top. Everything that is wrong is reported at once.
"""

import copy
import dataclasses
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from eef_jax.config import fields, plugin
from eef_jax.config.names import RENAMED
from eef_jax.config.sections import Config
from eef_jax.config.source import values_of
from eef_jax.errors import ConfigError, did_you_mean
from eef_jax.storage import files

Override = tuple[str, str]  # a field's path ("train.epochs") and the text given for it


def new(*, env: str = "", expert: str = "", method: str = "eef") -> config_dict.ConfigDict:
    """All fields of a run with these plug-ins at their defaults, for a config file to change.

    Args:
        env: name of the environment.
        expert: name of the expert; "" where trajectories come from a file.
        method: name of the method.

    Raises:
        ConfigError: there is no such plug-in.
    """
    names = {"env": env, "expert": expert, "method": method}
    values: dict[str, Any] = {}
    for one in fields.fields(Config):
        if one.name in names:
            values[one.name] = _defaults(one.name, names[one.name])
        else:
            values[one.name] = plain(one.default)
    # Values are checked when the run reads them, all at once, with better messages.
    made = config_dict.ConfigDict(values, type_safe=False)
    made.lock()
    return made


def load(source: str, overrides: Sequence[Override] = ()) -> Config:
    """Read a config file, with flags on top.

    Args:
        source: `NAME[:PRESET]` of a config that ships, `FILE.py[:PRESET]` of any other.
        overrides: (dotted field, value as text) pairs, applied in their order.

    Raises:
        ConfigError: naming every problem: unknown fields, types, ranges.
    """
    return override(values_of(source), overrides)


def override(values: Mapping[str, Any], overrides: Sequence[Override] = ()) -> Config:
    """Validate plain values with flags on top.

    The name of a plug-in is changed first: its fields exist before other flags are read, and what
    the values had changed of the former plug-in's defaults is kept where the new one has the field.

    Args:
        values: a mapping of sections: of a config file, or of a work folder's config.json.
        overrides: paths of fields and the texts given for them; later ones win.

    Raises:
        ConfigError: naming every problem: unknown fields, types, ranges.
    """
    changed = copy.deepcopy(dict(values))
    last = dict(overrides)
    for section in plugin.FAMILIES:
        if (name := last.pop(f"{section}.name", None)) is not None:
            changed[section] = switched(section, name, changed[section])
    problems: list[str] = []
    for path, text in last.items():
        problems += _set(changed, path, text)
    return read(changed, problems)


def read(values: Mapping[str, Any], problems: Iterable[str] = ()) -> Config:
    """Validate plain values: of a config file, or of a work folder's config.json.

    Args:
        values: a mapping of sections.
        problems: found before; reported together with the new ones.

    Raises:
        ConfigError: naming every problem.
    """
    found = list(problems)
    found += _unknown("", values, [one.name for one in fields.fields(Config)])
    made: dict[str, Any] = {}
    for one in fields.fields(Config):
        if one.name not in values and one.name not in plugin.FAMILIES:
            continue
        value = values.get(one.name, {})
        if one.name in plugin.FAMILIES:
            made[one.name] = _plugin(one.name, value, found)
        else:
            made[one.name] = _value(one, value, one.name, found)
    if not found:
        config = Config(**made)
        found = list(config.problems())
        if not found:
            return config
    count = f"{len(found)} problems" if len(found) > 1 else "a problem"
    raise ConfigError(f"{count} in the config:\n" + "\n".join(f"  {line}" for line in found))


def plain(value: Any) -> Any:
    """A section as plain values (JSON except for tuples); a plug-in's options follow its name."""
    if isinstance(value, plugin.Plugin):
        shared = {one.name: getattr(value, one.name) for one in fields.fields(type(value))}
        options = shared.pop("options")
        return shared | ({} if options is None else plain(options))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields.fields(type(value))}
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return value


def of_kind(config: Config, kind: fields.Kind) -> dict[str, Any]:
    """The fields of a kind: value by path."""
    return {path: plain(value) for path, one, value in walk(config) if one.spec.kind == kind}


def may_differ(config: Config) -> set[str]:
    """The fields that a work folder's config.json need not have in common with this config."""
    return {path for path, one, _ in walk(config) if one.spec.kind != "results"}


def walk(config: Config) -> Iterator[tuple[str, fields.Field, Any]]:
    """Path, declaration and value of every field, sections in order."""
    for one in fields.fields(Config):
        value = getattr(config, one.name)
        if one.name in plugin.FAMILIES:
            for name, shared in plugin.common(one.name).items():
                yield f"{one.name}.{name}", shared, getattr(value, name)
            if value.options is not None:
                yield from _walk(one.name, value.options)
        elif dataclasses.is_dataclass(value):
            yield from _walk(one.name, value)
        else:
            yield one.name, one, value


def _walk(prefix: str, section: Any) -> Iterator[tuple[str, fields.Field, Any]]:
    for one in fields.fields(type(section)):
        value = getattr(section, one.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(f"{prefix}.{one.name}", value)
        else:
            yield f"{prefix}.{one.name}", one, value


def _defaults(section: str, name: str) -> dict[str, Any]:
    declared = plugin.declared(section, name)
    shared = {one: spec.default for one, spec in plugin.common(section).items()}
    own = (
        {}
        if declared is None
        else {one.name: plain(one.default) for one in fields.fields(declared)}
    )
    return {**shared, "name": name, **own}


def switched(section: str, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A section's values under another plug-in: its defaults, and what the file had changed."""
    before, after = _defaults(section, values.get("name", "")), _defaults(section, name)
    changed = {one: value for one, value in values.items() if value != before.get(one)}
    return after | {one: value for one, value in changed.items() if one in after} | {"name": name}


def _set(values: dict[str, Any], path: str, text: str) -> list[str]:
    """Set one field from a flag's text; the problems with it."""
    *sections, name = path.split(".")
    at: Any = values
    for section in sections:
        if not isinstance(at.get(section), Mapping):
            return [_unknown_field(path, list(_paths(values)))]
        at = at[section]
    kind = _type_of(values, path)
    if kind is None:
        return [_unknown_field(path, list(_paths(values)))]
    try:
        at[name] = fields.parse(text, kind)
    except ValueError:
        return [f"{path} is {text!r}, expected {fields.described(kind)}"]
    return []


def _type_of(values: Mapping[str, Any], path: str) -> Any:
    """The declared type of a field; None where there is none."""
    first, *rest = path.split(".")
    declared: Any = {one.name: one for one in fields.fields(Config)}.get(first)
    if declared is None:
        return None
    if first in plugin.FAMILIES:
        cls = plugin.declared(first, values[first].get("name", ""))
        own = {} if cls is None else {one.name: one for one in fields.fields(cls)}
        table = plugin.common(first) | own
        declared, rest = table.get(rest[0]) if rest else None, rest[1:]
    for name in rest:
        if declared is None or not dataclasses.is_dataclass(declared.type):
            return None
        declared = {one.name: one for one in fields.fields(declared.type)}.get(name)
    if declared is None or dataclasses.is_dataclass(declared.type):
        return None
    return declared.type


def _paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _plugin(section: str, values: Any, found: list[str]) -> Any:
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        found.append(f"{section}.name is missing: the name of a module in eef_jax/{section}s")
        return None
    try:
        declared = plugin.declared(section, values["name"])
    except ConfigError as error:
        found.append(f"{section}.name: {error}")
        return None
    shared = plugin.common(section)
    own = {k: v for k, v in values.items() if k not in shared}
    made = {
        name: _value(one, values[name], f"{section}.{name}", found)
        for name, one in shared.items()
        if name in values
    }
    if declared is None:
        found.extend(_unknown(section, own, list(shared)))
        options = None
    else:
        options = _section(declared, own, section, found, also=list(shared))
    return _KINDS[section](**made, options=options)


_KINDS: dict[str, Any] = {
    section: typing.get_type_hints(Config)[section] for section in plugin.FAMILIES
}


def _section(
    cls: Any, values: Mapping[str, Any], path: str, found: list[str], also: Sequence[str] = ()
) -> Any:
    """A section from its values; None where a problem was found."""
    before = len(found)
    known = {one.name: one for one in fields.fields(cls)}
    found.extend(_unknown(path, values, [*known, *also]))
    made = {
        name: _value(one, values[name], f"{path}.{name}", found)
        for name, one in known.items()
        if name in values
    }
    if len(found) > before:
        return None
    try:
        section = cls(**made)
    except ConfigError as error:
        found.append(f"{path}: {error}")
        return None
    if hasattr(section, "problems"):
        found.extend(section.problems())
    return section


def _value(one: fields.Field, value: Any, path: str, found: list[str]) -> Any:
    if dataclasses.is_dataclass(one.type):
        if not isinstance(value, Mapping):
            found.append(f"{path} is {value!r}, expected a section with fields")
            return None
        return _section(one.type, value, path, found)
    found.extend(fields.value_problems(one, value, path))
    if one.spec.path and isinstance(value, str):
        try:
            return files.expand(value)
        except ConfigError as error:
            found.append(f"{path}: {error}")
    return tuple(value) if isinstance(value, list) else value


def _unknown(path: str, values: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    prefix = f"{path}." if path else ""
    return [
        _unknown_field(prefix + name, [prefix + one for one in known])
        for name in values
        if name not in known
    ]


def _unknown_field(path: str, known: Sequence[str]) -> str:
    if path in RENAMED:
        return f"there is no field {path}: it is called {RENAMED[path]} now"
    leaf = path.rpartition(".")[2]
    same = [one for one in known if one.rpartition(".")[0] == path.rpartition(".")[0]] or known
    leaves = {one.rpartition(".")[2]: one for one in known}
    elsewhere = f"; {leaves[leaf]} is a field" if leaf in leaves else ""
    return f"there is no field {path}: {did_you_mean(path, same)}{elsewhere}"
