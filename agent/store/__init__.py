"""What must be remembered: one SQLite database, one writer thread."""
