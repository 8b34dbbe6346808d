"""Hugging Face folders and PEFT adapters: read into models, and written."""
