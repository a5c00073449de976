"""The parts of the boundary `operator`."""
