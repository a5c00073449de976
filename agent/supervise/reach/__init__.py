"""Whether the addresses that sessions need can be reached."""
