"""Arrays with and without a shape."""

import ast

from benchmarks.common.measures import annotations
from tests.benchmarks.common.measures import trees

SOURCE = """
Head = Callable[[Float[Array, "b"]], jax.Array]
def f(x: Float[Array, "b t"], y: jax.Array, z: "Int[Array, 'b'] | None") -> jax.Array: ...
class A:
    field: Int8[np.ndarray, "n"]
"""


def test_annotations_are_counted_and_aliases_apart(tmp_path):
    shaped, aliases = annotations.measure(trees.make(tmp_path, {"eef_jax/a.py": SOURCE}))
    assert shaped.value == "3 / 2"
    assert shaped.places == ("eef_jax: 3 / 2",)
    # Of quotes inside annotations no tree is walked: one shape of four is the alias's.
    assert aliases.value == str(1 + 2 - 3)


def test_arrays_without_a_shape_are_found_by_line():
    tree = ast.parse("def f(x: np.ndarray, y: Float[np.ndarray, 'n']): isinstance(x, np.ndarray)")
    assert annotations.arrays_without_shape(tree, array_types=frozenset({"ndarray"})) == [1]
    shaped = ast.parse("x: Float[np.ndarray, 'n']")
    assert annotations.arrays_without_shape(shaped, array_types=frozenset({"ndarray"})) == []
