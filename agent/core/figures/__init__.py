"""Counts and measurements: of a session, of repairs, over time."""
