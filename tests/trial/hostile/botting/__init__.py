"""The parts of the generator of what a bot of somebody's own does."""
