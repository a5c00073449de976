"""Pairing at a desk: a person's own browser makes the session, an agent elsewhere runs it."""
