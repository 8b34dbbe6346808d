"""Names in several modules, and names that nothing refers to."""

from benchmarks.common.measures import names
from tests.benchmarks.common.measures import trees

SOURCE = """\
def twice(): ...
def used(): ...
def unused():
    unused()
LIMIT = 1
"""


def test_names_are_found_by_their_words(tmp_path):
    made = trees.make(
        tmp_path,
        {
            "eef_jax/a.py": SOURCE,
            "eef_jax/b.py": "from eef_jax.a import used\ndef twice():\n    used()\n",
            "tests/test_a.py": "from eef_jax.a import LIMIT\n",
        },
    )
    rows = trees.by_name(names.measure(made))
    several = rows["public names defined in several modules"]
    assert several.places == ("twice: eef_jax.a, eef_jax.b",)
    unused = rows["names without a reference"].places
    assert "eef_jax/a.py:3 unused" in unused and not any(p.split()[-1] == "used" for p in unused)
    assert rows["names that only tests refer to"].places == ("eef_jax/a.py:5 LIMIT",)
