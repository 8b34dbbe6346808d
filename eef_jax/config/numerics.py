"""Numerics of a run: chosen once, recorded in its work folder, and taken again at each start.

    <workdir>/numerics.json     "values": by field; "earlier": those that --new_numerics replaced

A field of this kind changes the last bits of float sums. Its open values (`auto`, 0, -1) leave the
choice to the devices and their memory; what was chosen is recorded when it is first needed, so that
a start on another machine runs the same programs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from eef_jax.config import fields, reading
from eef_jax.config.sections import Config
from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import sealed

FILE = "numerics.json"
FLAG = "--new_numerics"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a work folder has recorded.

    Attributes:
        values: chosen values by field.
        earlier: what `--new_numerics` replaced, in its order: `values`, and the first `stage` that
            was not finished then.
    """

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    earlier: tuple[Mapping[str, Any], ...] = ()

    def renewed(self, stage: str) -> "Record":
        """The record without values, at a start that takes new ones from `stage` on."""
        before = [{"stage": stage, "values": self.values}] if self.values else []
        return Record(earlier=(*self.earlier, *before))

    def of_stage(self, stage: str, values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The values that a stage was made with: before it was interrupted, and now."""
        return [*(one["values"] for one in self.earlier if one["stage"] == stage), values]


NOTHING = Record()


def read(folder: epath.Path) -> Record | None:
    """What a work folder has recorded; None where nothing is.

    Raises:
        DataError: the file is not as it was written.
    """
    path = folder / FILE
    if not path.exists():
        return None
    found = sealed.read(path, remedy=f"bring it back from a copy, or move it away and add {FLAG}")
    return Record(values=found["values"], earlier=tuple(found["earlier"]))


def write(folder: epath.Path, record: Record) -> None:
    """Record values; one process does so at a time, the one that holds the folder's lock."""
    if read(folder) != record:
        sealed.write(folder / FILE, {"values": record.values, "earlier": list(record.earlier)})


def missing(folder: epath.Path) -> DataError:
    """The error of a folder with finished stages and no record."""
    return DataError(
        f"{folder / FILE} is missing, which says how the finished stages were computed: bring it "
        f"back from a copy, or add {FLAG} to choose and record anew"
    )


def chosen(config: Config) -> dict[str, Any]:
    """The numerics that are not open: value by field, sorted."""
    values = {path: value for path, one, value in _walk(config) if value not in one.spec.open}
    return dict(sorted(values.items()))


def fill(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with these values where its own are open."""
    return replace(config, {path: values[path] for path in open_fields(config) if path in values})


def open_fields(config: Config) -> list[str]:
    """The fields whose value is still to be chosen."""
    return [path for path, one, value in _walk(config) if value in one.spec.open]


def replace(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other values of some fields."""
    if not values:
        return config
    plain = reading.plain(config)
    for path, value in values.items():
        *sections, name = path.split(".")
        at = plain
        for section in sections:
            at = at[section]
        at[name] = value
    return reading.read(plain)


def check(config: Config, recorded: Mapping[str, Any], where: epath.PathLike) -> None:
    """Check that a config asks for what its run has recorded, or leaves it open.

    Raises:
        ConfigError: it asks for other values; all are named.
    """
    asked = chosen(config)
    other = [name for name in asked if name in recorded and asked[name] != recorded[name]]
    if other:
        rows = [f"  {name}: {recorded[name]!r} recorded, {asked[name]!r} asked" for name in other]
        raise ConfigError(
            f"the run in {where} was begun with other numerics, which change the last bits of what "
            "it computes:\n" + "\n".join(rows) + f"\nLeave these fields as they were, or add {FLAG}"
            " to take the new values for what is still to be made"
        )


def _walk(config: Config) -> list[tuple[str, fields.Field, Any]]:
    return [row for row in reading.walk(config) if row[1].spec.kind == "numerics"]
