"""Requests of a fleet: to whom they go, and what is answered for a machine that is away."""
