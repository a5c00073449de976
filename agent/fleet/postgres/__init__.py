"""The coordinator on PostgreSQL. Needs psycopg, which only machines of a fleet have."""

from agent.errors import ConfigError
from agent.lazy import load_when_used

# psycopg imports them for a libpq that no package brings, and for its version: 0.5 MiB.
load_when_used("ctypes", "importlib.resources")
try:
    import psycopg  # noqa: F401
except ImportError as error:
    raise ConfigError(
        f"cannot use [fleet] database: {error}; `scripts/install --with fleet` brings what is"
        " missing, or `pip install 'wa-agent[fleet]'`",
        code="fleet_packages",
    ) from error
