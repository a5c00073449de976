"""What leaves the agent by itself."""
