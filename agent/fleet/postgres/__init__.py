"""The coordinator on PostgreSQL. Needs psycopg, which only machines of a fleet have."""

from agent.errors import ConfigError

try:
    import psycopg  # noqa: F401
except ImportError as error:
    raise ConfigError(
        f"cannot use [fleet] database: {error}; `scripts/install --with fleet` brings what is"
        " missing, or `pip install 'wa-agent[fleet]'`",
        code="fleet_packages",
    ) from error
