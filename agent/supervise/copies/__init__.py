"""Copies of a session's files: snapshots and archives, and when they are made."""
