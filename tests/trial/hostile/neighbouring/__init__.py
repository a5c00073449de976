"""The parts of the generator of what a neighbour on the machine does."""
