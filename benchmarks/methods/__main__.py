"""`python -m benchmarks.methods`: see `run`."""

from benchmarks.methods.run import run

run()
