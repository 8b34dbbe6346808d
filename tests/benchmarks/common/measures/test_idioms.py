"""Idioms are found in prose and code, over the end of a line, where they are meant."""

from benchmarks.common.measures import idioms
from tests.benchmarks.common.measures import trees


def test_a_phrase_is_found_over_the_end_of_a_line(tmp_path):
    source = "# It goes the way\n# back.\nway_back = 1  # a chain\n"
    rows = trees.by_name(idioms.measure(trees.make(tmp_path, {"eef_jax/a.py": source})))
    found = rows["way back, way forth (backward pass)"]
    assert found.value == "1 + 0" and found.places == ("eef_jax/a.py:1: # It goes the way",)
    # A chain is meant as an idiom in the engine only.
    assert rows["chain (block table)"].value == "0 + 0"
    assert rows["all idioms"].value == "1 + 0 (on 1 lines)"
