"""`python -m benchmarks.webshop`: see `run`."""

from benchmarks.webshop.run import run

run()
