"""Capabilities that the base can do without, each in a folder of its own with its door."""
