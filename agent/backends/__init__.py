"""Sessions on servers of other programs: one task in the agent for each server."""
