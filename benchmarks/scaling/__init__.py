"""Training and sampling on TPU slices, compiled ahead of time."""
