"""The agent posts its events to the addresses that agent.toml names."""
