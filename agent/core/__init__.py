"""All decisions: pure functions over frozen values."""
