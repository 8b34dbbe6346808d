"""Runs `python -m benchmarks.memory`."""

from benchmarks.memory.run import main

main()
