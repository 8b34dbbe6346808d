"""Configs: one file is one run."""
