"""Copies of sessions that other machines of the fleet hold: noticed, sealed, kept, built again."""
