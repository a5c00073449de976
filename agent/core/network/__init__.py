"""What is reachable: the addresses that sessions need, and what to blame for a lost connection."""
