"""Conversations to token ids and back."""
