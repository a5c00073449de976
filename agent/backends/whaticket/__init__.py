"""Sessions on a whaticket server, or on one of its forks."""
