"""The rollout engine next to others: one workload, a runner an engine, one JSON line each."""
