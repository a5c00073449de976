"""Who may start or repair now: start queues, memory, incidents."""
