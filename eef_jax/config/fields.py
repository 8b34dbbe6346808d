"""How a field of a config section is declared, checked and read from text.

A section is a frozen dataclass whose fields are made by `field`: the declaration holds the default,
one line of help, the unit, the range and the kind. Environments, experts and methods declare their
sections in the same way.

    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        states: int = field(5, "explored states of an expert trajectory (M)", at_least=0)
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from eef_jax.errors import ConfigError, did_you_mean

# results: the run's outcome depends on it (hashed). numerics: it changes the last bits of float
# sums alone; a run keeps what its first start has chosen (`numerics`). free: it changes neither,
# and may differ each time a run is started.
Kind = Literal["results", "numerics", "free"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a field's declaration says beyond its type and default.

    Attributes:
        help: one line, without a full stop.
        unit: tokens, seconds, bytes, ...; "" where the type says it all.
        kind: what a change of the value changes.
        at_least: smallest value.
        at_most: largest value.
        above: a bound that the value must exceed.
        below: a bound that the value must stay under.
        also: a special value outside the range (-1 for "the rest").
        open: values of a numerics field that leave the choice to the devices and their memory.
        path: whether it names a file or folder, local or on gs://; `~` is the home folder.
    """

    help: str = ""
    unit: str = ""
    kind: Kind = "results"
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    also: Any = None
    open: tuple[Any, ...] = ()
    path: bool = False

    def range(self) -> str:
        """The range in words; "" without bounds."""
        parts = []
        if self.at_least is not None and self.at_most is not None:
            parts.append(f"{self.at_least:g} to {self.at_most:g}")
        elif self.at_least is not None:
            parts.append(f"{self.at_least:g} or more")
        elif self.at_most is not None:
            parts.append(f"{self.at_most:g} or less")
        if self.above is not None:
            parts.append(f"above {self.above:g}")
        if self.below is not None:
            parts.append(f"below {self.below:g}")
        text = ", ".join(parts)
        return f"{text}, or {self.also!r}" if text and self.also is not None else text

    def holds(self, value: Any) -> bool:
        """Whether a value is inside the range; values without an order always are."""
        if isinstance(value, bool) or not isinstance(value, int | float) or value == self.also:
            return True
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of a section, as declared."""

    name: str
    type: Any
    default: Any
    spec: Spec


def field(default: Any, help: str, **spec: Any) -> Any:
    """Declare a field of a section.

    Args:
        default: the only place where the default stands.
        help: one line, without a full stop.
        **spec: the other attributes of `Spec`.
    """
    return dataclasses.field(default=default, metadata={"spec": Spec(help=help, **spec)})


def section(cls: Any, help: str = "") -> Any:
    """Declare a field that is itself a section, with that section's defaults."""
    return dataclasses.field(default_factory=cls, metadata={"spec": Spec(help=help)})


def fields(cls: Any) -> Iterator[Field]:
    """The fields of a section in order. Fields that no caller sets (`init=False`) are left out."""
    hints = typing.get_type_hints(cls)
    for one in dataclasses.fields(cls):
        if not one.init:
            continue
        default = one.default
        if one.default_factory is not dataclasses.MISSING:
            default = one.default_factory()
        spec = one.metadata.get("spec", Spec())
        yield Field(name=one.name, type=hints[one.name], default=default, spec=spec)


def options(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union type; a type that is none is its own only alternative."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value has a declared type."""
    origin = typing.get_origin(kind)
    if len(options(kind)) > 1:
        return any(fits(value, option) for option in options(kind))
    if origin is Literal:
        return any(type(value) is type(arg) and value == arg for arg in typing.get_args(kind))
    if origin is tuple:
        item = typing.get_args(kind)[0]
        return isinstance(value, tuple | list) and all(fits(v, item) for v in value)
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        return isinstance(value, Mapping)
    if origin is not None and isinstance(origin, type):  # e.g. collections.abc.Mapping[str, Any]
        return isinstance(value, origin)
    if kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, kind)


def described(kind: Any) -> str:
    """A declared type in words."""
    if len(options(kind)) > 1:
        return " or ".join(described(option) for option in options(kind))
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return "values separated by commas"
    plain = {
        bool: "True or False",
        int: "a whole number",
        float: "a finite number",
        str: "text",
        type(None): "None",
    }
    return plain.get(kind, "a mapping (JSON)")


def parse(text: str, kind: Any) -> Any:
    """The value that a flag's text means under a declared type.

    Raises:
        ValueError: it means none.
    """
    for option in sorted(options(kind), key=_order):
        try:
            return _parse_one(text, option)
        except ValueError:
            continue
    raise ValueError(f"{text!r} is not {described(kind)}")


def _order(kind: Any) -> int:
    # Text reads everything, so it is tried last; whole numbers before other numbers.
    return {type(None): 0, bool: 1, int: 2, float: 3, str: 9}.get(kind, 5)


def _parse_one(text: str, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is Literal:
        for arg in typing.get_args(kind):
            if text == str(arg):
                return arg
        raise ValueError(text)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        inner = text.strip().removeprefix("(").removesuffix(")")
        return tuple(_parse_one(part.strip(), item) for part in inner.split(",") if part.strip())
    if kind is type(None):
        if text.lower() in ("none", "null"):
            return None
        raise ValueError(text)
    if kind is bool:
        if text.lower() in ("true", "1", "yes"):
            return True
        if text.lower() in ("false", "0", "no"):
            return False
        raise ValueError(text)
    if kind in (int, float, str):
        return kind(text)
    value = json.loads(text)  # a mapping; JSONDecodeError is a ValueError
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def problems(section: Any, path: str) -> list[str]:
    """Everything wrong with the types and ranges of a section's own values, a line each."""
    found = []
    for one in fields(type(section)):
        value = getattr(section, one.name)
        if not dataclasses.is_dataclass(value):
            found += value_problems(one, value, f"{path}.{one.name}")
    return found


def value_problems(one: Field, value: Any, path: str) -> list[str]:
    """What is wrong with a value of a field: its type, or its range."""
    expected = described(one.type)
    if not fits(value, one.type):
        return [f"{path} is {value!r}, expected {expected}{_near_choices(value, one.type)}"]
    if not one.spec.holds(value):
        return [f"{path} is {value!r}, expected {expected}, {one.spec.range()}"]
    return []


def check(section: Any, path: str) -> None:
    """Check the types and ranges of a section's values, for its `__post_init__`.

    Raises:
        ConfigError: naming every problem.
    """
    if found := problems(section, path):
        raise ConfigError("; ".join(found))


def _near_choices(value: Any, kind: Any) -> str:
    """The near names among a field's choices."""
    choices = [c for o in options(kind) for c in typing.get_args(o) if isinstance(c, str)]
    if not isinstance(value, str) or not choices:
        return ""
    return f" ({did_you_mean(value, choices)})"
