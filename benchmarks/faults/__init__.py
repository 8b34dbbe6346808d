"""Kills of a run at random moments, and what is lost by them."""
