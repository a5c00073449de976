"""agent.toml and the environment, read once into frozen values. An unknown key, a wrong type or an
impossible pair is a ConfigError that names key, file and line."""
