"""Copies of sessions for other machines: sealed in the database, browser profiles by restic."""
