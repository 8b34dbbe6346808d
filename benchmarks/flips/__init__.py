"""Bytes flipped in the files of a run: what notices them."""
