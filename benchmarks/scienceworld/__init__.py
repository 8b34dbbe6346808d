"""ScienceWorld: speed of steps, forks and replaced processes."""
