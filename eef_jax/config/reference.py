"""Every field in words: `--config_help` of a preset, and docs/config.md of all sections."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from eef_jax import plugins
from eef_jax.config import fields, plugin, reading
from eef_jax.config.sections import Config
from eef_jax.errors import ConfigError

_HEAD = """\
# Config fields

Every field of a run, as `--config.SECTION.FIELD=VALUE` or set in a config file. This page is made
from the declarations in `eef_jax/config/sections.py` and in the plug-ins' modules by

```bash
python -m eef_jax.config > docs/config.md
```

Kinds: a **results** field decides what comes out of a run, so a work folder keeps its value. A
**numerics** field changes the last bits of float sums: a run keeps what its first start chose,
unless `--new_numerics` is given. A **free** field changes neither and may differ each time a run is
started ([reliability.md](reliability.md#what-may-differ-at-a-later-start)).
`python -m eef_jax.main --config=FILE:PRESET --config_help` prints a preset's values.
"""


def text(config: Config) -> str:
    """Every field of a config: its value, its default where that differs, and its help."""
    lines = []
    for path, one, value in reading.walk(config):
        changed = "" if value == one.default else f" (default {_shown(one.default)})"
        lines.append(f"--config.{path}={_shown(value)}{changed}")
        lines.append(f"    {_help(one)}")
    return "\n".join(lines)


def markdown() -> str:
    """docs/config.md: the sections of `Config`, then those of the plug-ins in the package."""
    lines = [_HEAD]
    for one in fields.fields(Config):
        if one.name in plugin.FAMILIES:
            lines += _plugins(one.name)
        elif dataclasses.is_dataclass(one.type):
            lines += [f"## `{one.name}`: {one.spec.help}", "", *_table(one.name, one.default)]
        else:
            lines += ["## Top level", "", *_rows([(one.name, one, one.default)])]
    return "\n".join(lines).rstrip() + "\n"


def _plugins(section: str) -> Iterator[str]:
    family = plugin.FAMILIES[section]
    yield f"## `{section}`: a plug-in of `eef_jax/{family}`, chosen by `{section}.name`"
    yield ""
    shared = [(f"{section}.{n}", one, one.default) for n, one in plugin.common(section).items()]
    yield from _rows(shared)
    for name in plugins.available(family):
        try:
            declared = plugin.declared(section, name)
        except ConfigError:  # the package of an extra is missing
            continue
        yield f"### `{section}.name={name}`"
        yield ""
        yield from _rows([(f"{section}.{f.name}", f, f.default) for f in fields.fields(declared)])


def _table(path: str, value: Any) -> list[str]:
    rows = []
    nested = [(path, value)]
    while nested:
        prefix, section = nested.pop(0)
        for one in fields.fields(type(section)):
            default = getattr(section, one.name)
            if dataclasses.is_dataclass(default):
                nested.append((f"{prefix}.{one.name}", default))
            else:
                rows.append((f"{prefix}.{one.name}", one, default))
    return _rows(rows)


def _rows(rows: Sequence[tuple[str, fields.Field, Any]]) -> list[str]:
    if not rows:
        return ["No fields.", ""]
    lines = ["| field | default | kind | what |", "|---|---|---|---|"]
    for path, one, default in rows:
        shown = _shown(default).replace("|", "\\|")
        lines.append(f"| `{path}` | `{shown}` | {one.spec.kind} | {_help(one)} |")
    return [*lines, ""]


def _help(one: fields.Field) -> str:
    parts = [one.spec.help]
    expected = one.spec.range()
    if one.spec.unit:
        parts.append(f"in {one.spec.unit}")
    parts.append(f"{fields.described(one.type)}{f', {expected}' if expected else ''}")
    return "; ".join(part for part in parts if part).replace("|", "\\|")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "''" if value == "" else str(value)
