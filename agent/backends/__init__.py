"""Sessions on somebody's server: one task in the agent for each server."""
