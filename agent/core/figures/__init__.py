"""What is counted and measured: of a session, of repairs, over time."""
