"""Benchmarks: each module is a command that prints one table and keeps the figures behind it."""
