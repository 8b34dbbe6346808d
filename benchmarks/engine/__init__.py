"""The rollout engine compared with others: one workload, one runner per engine."""
