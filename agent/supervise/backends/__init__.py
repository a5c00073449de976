"""Backends: their workers, circuits and sessions."""
