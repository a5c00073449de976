"""The worker of one pack: one process for several sessions of an engine."""
