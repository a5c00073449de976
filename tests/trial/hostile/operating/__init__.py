"""What the boundary `operator` is made of."""
