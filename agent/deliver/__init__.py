"""Events from the agent to its listeners."""
