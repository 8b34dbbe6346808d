"""The sampling engine: token ids in, token ids out.

It keeps each conversation's keys and values across turns, shares equal prefixes between
conversations and batches whatever is waiting. `engine.Engine` is its door. Knows models and ids;
knows no text and no environments.
"""
