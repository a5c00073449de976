"""The whole agent and real sandbox workers in one process and one loop, in virtual time."""
