"""Faults done to a fleet of real agents; a witness sees whether a session ever runs twice."""
