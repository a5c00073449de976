"""What stands in for a whaticket-like server in tests."""
