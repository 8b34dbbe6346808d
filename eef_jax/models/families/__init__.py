"""Model families, a file each: their `config.json` and their tensors' names."""
