"""Models: one decoder for all families, LoRA adapters, Hugging Face folders.

Operates on token ids only; text lives in `text/`.
"""
