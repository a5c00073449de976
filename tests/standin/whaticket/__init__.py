"""A stand-in for a whaticket-like server in tests."""
