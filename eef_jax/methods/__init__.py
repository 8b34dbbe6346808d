"""Methods: what to play and what to learn, found by module name."""
