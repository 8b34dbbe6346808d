"""Runs `python -m benchmarks.methods`."""

from benchmarks.methods.run import run

run()
