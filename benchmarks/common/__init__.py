"""What several benchmarks and checks share."""
