"""Environments: text simulators, found by module name."""
