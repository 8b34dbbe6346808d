"""`python -m benchmarks.scaling`: see `run`."""

from benchmarks.scaling.run import run

run()
