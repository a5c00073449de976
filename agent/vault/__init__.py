"""Session files: found, checked, retired, never deleted."""
