"""Seeded schedules of faults for a small fleet, in virtual time, on the core's own arithmetic."""
