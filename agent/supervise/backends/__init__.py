"""Backends: their workers, their circuits, and the sessions they hold."""
