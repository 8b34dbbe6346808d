"""Quantized bases compared with unquantized ones, and the memory of importing a model."""
