"""Playing episodes: the loop, its threads for simulators, and several processes together."""
