"""What the agent remembers: one SQLite database, one writer thread."""
