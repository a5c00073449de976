"""The agent in the foreground with one sandbox instance to scan, for the first minute."""
