"""Examples: what a user writes outside the package."""
