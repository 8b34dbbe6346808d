"""Runs `python -m benchmarks.train`."""

from benchmarks.train.run import run

run()
