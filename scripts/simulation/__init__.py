"""A day of a fleet in virtual time: the agent's own core against simpler ways to supervise."""
