"""Commands about single sessions: making, pairing, sending, and the tools of an engine."""
