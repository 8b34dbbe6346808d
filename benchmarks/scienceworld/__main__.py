"""`python -m benchmarks.scienceworld`: see `run`."""

from benchmarks.scienceworld.run import run

run()
