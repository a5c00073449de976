"""A worker runs an operator's own bot, a program that agent.toml names, as a session."""
