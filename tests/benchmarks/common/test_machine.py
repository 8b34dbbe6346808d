"""What a benchmark says about its machine."""

import os

from benchmarks.common import machine


def test_it_names_processor_and_cores():
    name, *rest = machine.describe().split(", ")
    assert name and rest[-1] == f"{os.cpu_count()} cores"
