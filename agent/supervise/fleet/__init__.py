"""This machine as one of a fleet."""
