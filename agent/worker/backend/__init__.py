"""The worker of one backend: one process for all sessions of a server."""
