"""Methods compared on the same tasks and seeds."""
