"""Experts: where trajectories come from, scripted or read from files."""
