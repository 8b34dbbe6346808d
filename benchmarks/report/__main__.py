"""Runs `python -m benchmarks.report`."""

from benchmarks.report.run import run

run()
