"""Models: one decoder, a small file for each family, an adapter of our own, Hugging Face folders."""
