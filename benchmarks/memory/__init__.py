"""Memory of a process over the trajectories of a large run."""
