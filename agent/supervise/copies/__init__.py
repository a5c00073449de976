"""Copies of a session's files, and when they are made."""
