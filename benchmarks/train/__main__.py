"""`python -m benchmarks.train`: see `run`."""

from benchmarks.train.run import run

run()
