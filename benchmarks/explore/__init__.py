"""The runners of `benchmarks.exploration`: one workload, an engine each, one JSON line each."""
