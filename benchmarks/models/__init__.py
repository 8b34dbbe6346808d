"""Models: quantized bases next to full ones."""
