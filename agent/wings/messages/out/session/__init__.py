"""What the outbox knows of a session beside its messages."""
