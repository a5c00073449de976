"""Commands about copies of sessions."""
