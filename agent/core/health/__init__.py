"""How healthy a session is: what its claims prove, and the verdict."""
