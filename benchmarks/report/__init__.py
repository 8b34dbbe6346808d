"""The page of a large run: its size, and how long it takes to open and to filter."""
