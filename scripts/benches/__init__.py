"""What the agent costs beside others that do the same, measured side by side."""
