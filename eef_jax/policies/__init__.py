"""Policies: each maps a conversation to the next assistant message."""
