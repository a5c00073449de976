"""The wire between the agent and a worker."""
