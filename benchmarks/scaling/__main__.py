"""Runs `python -m benchmarks.scaling`."""

from benchmarks.scaling.run import run

run()
