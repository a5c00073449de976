"""The subprocess that runs one engine."""
