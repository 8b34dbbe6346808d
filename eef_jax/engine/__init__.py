"""The sampling engine: token ids in, token ids out.

It keeps each conversation's keys and values across turns, shares equal prefixes between
conversations and batches whatever is waiting. Knows models and ids; knows no text, no environments
and no threads.
"""
