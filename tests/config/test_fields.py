"""How fields are declared, checked and read from text."""

import dataclasses
from typing import Literal

import pytest

from eef_jax.config import fields
from eef_jax.config.fields import field


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    count: int = field(3, "a number of things", at_least=0, at_most=9)
    rate: float = field(0.5, "a share", above=0, below=1)
    axis: int = field(1, "parts", at_least=1, also=-1)
    name: Literal["one", "two"] = field("one", "a name")
    size: int | Literal["auto"] = field(0, "a size", at_least=0)
    names: tuple[str, ...] = field((), "names")
    maybe: float | None = field(None, "a number or none")
    plain: str = "no declaration"


TYPES = {one.name: one for one in fields.fields(Section)}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "4", 4),
        ("rate", "1e-3", 1e-3),
        ("rate", "1", 1.0),
        ("name", "two", "two"),
        ("size", "auto", "auto"),
        ("size", "12", 12),
        ("names", "a,b", ("a", "b")),
        ("names", "", ()),
        ("names", "(a, b)", ("a", "b")),
        ("maybe", "None", None),
        ("maybe", "2.5", 2.5),
        ("plain", "12", "12"),
    ],
)
def test_text_is_read_by_the_declared_type(name, text, value):
    read = fields.parse(text, TYPES[name].type)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text"), [("count", "4.5"), ("count", "four"), ("name", "three"), ("maybe", "x")]
)
def test_text_of_another_type_is_refused(name, text):
    with pytest.raises(ValueError, match="is not"):
        fields.parse(text, TYPES[name].type)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("count", 0, True),
        ("count", True, False),
        ("count", 1.0, False),
        ("rate", 1, True),
        ("rate", float("nan"), False),
        ("rate", float("inf"), False),
        ("name", "three", False),
        ("size", "auto", True),
        ("size", "most", False),
        ("names", ["a"], True),
        ("names", "a", False),
        ("names", [1], False),
        ("maybe", None, True),
        ("plain", None, False),
    ],
)
def test_values_fit_their_declared_type(name, value, right):
    assert fields.fits(value, TYPES[name].type) == right


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        *(("count", 0, True), ("count", 9, True), ("count", 10, False), ("count", -1, False)),
        *(("rate", 0.0, False), ("rate", 1.0, False), ("rate", 0.99, True)),
        *(("axis", -1, True), ("axis", 0, False), ("axis", 1, True)),
        *(("size", "auto", True), ("size", -1, False), ("maybe", None, True)),
    ],
)
def test_values_lie_in_their_declared_range(name, value, right):
    assert TYPES[name].spec.holds(value) == right


def test_a_range_in_words():
    assert TYPES["count"].spec.range() == "0 to 9"
    assert TYPES["rate"].spec.range() == "above 0, below 1"
    assert TYPES["axis"].spec.range() == "1 or more, or -1"
    assert TYPES["plain"].spec.range() == ""


def test_a_field_needs_no_declaration_beyond_the_dataclass():
    assert TYPES["plain"].default == "no declaration" and TYPES["plain"].spec.kind == "results"
