"""Runs `python -m benchmarks.flips`."""

from benchmarks.flips.run import run

run()
