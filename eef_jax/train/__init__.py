"""Training: the state, one step, its loss and optimizer, the loop and checkpoints."""
