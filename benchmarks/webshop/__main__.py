"""Runs `python -m benchmarks.webshop`."""

from benchmarks.webshop.run import run

run()
