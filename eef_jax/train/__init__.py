"""Training: state, one step, its loss and optimizer, and the loop around them."""
