"""Data between the halves: encoded examples, their files, and packed batches."""
