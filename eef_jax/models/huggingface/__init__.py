"""Hugging Face model folders and PEFT adapters: loading and saving."""
