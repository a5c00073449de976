"""Commands about copies of sessions, and what those of the wings share."""
