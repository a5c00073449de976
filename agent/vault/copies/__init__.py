"""Snapshots: copies of a session, and a copy put back in its place."""
