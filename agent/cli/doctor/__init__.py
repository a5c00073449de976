"""`wa-agent doctor`: its checks of the machine, the agent and its database, and the archive of `--bundle`."""
