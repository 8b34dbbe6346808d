"""Models: one decoder, a small file for each family, our own adapter, Hugging Face folders."""
