"""Files of a run: the work folder and its stages, its lock, and what stages store."""
