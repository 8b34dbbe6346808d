"""Models: quantized bases next to full ones, and the memory that importing takes."""
