"""Messages that arrive in sessions and that are to be sent."""
