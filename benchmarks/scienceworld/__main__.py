"""Runs `python -m benchmarks.scienceworld`."""

from benchmarks.scienceworld.run import run

run()
