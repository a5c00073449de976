"""Costs of the agent beside other programs that do the same, measured side by side."""
