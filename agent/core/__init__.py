"""What decides: pure functions over frozen values."""
