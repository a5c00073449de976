"""The parts of every remote engine: HTTP to its server, and the state of that server."""
