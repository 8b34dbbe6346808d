"""Methods compared over the same tasks and seeds."""
