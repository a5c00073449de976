"""What the API asks of the supervisor: repairs, calls, checks, uploads."""
