"""Several processes as one run: who they are, how they wait for each other, who is alive."""
