"""Experts: policies that play the trajectories to learn from."""
