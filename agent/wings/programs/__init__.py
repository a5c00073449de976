"""[[program]]: people's own bots that may run as instances."""
