"""Policies: whoever speaks next."""
