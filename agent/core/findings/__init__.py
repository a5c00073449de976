"""What the facts of one session add up to: key errors, memory, silence, error rate."""
