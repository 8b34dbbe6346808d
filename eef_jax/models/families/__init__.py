"""Model families, one file each: fields of `config.json` and names of tensors."""
