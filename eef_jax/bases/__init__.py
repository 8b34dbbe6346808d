"""The pretrained nano bases that ship, a Hugging Face folder each."""
