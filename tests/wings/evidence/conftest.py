"""The commands over what stands in for an agent, and real agents."""

from tests.api.conftest import house, open_house
from tests.cli.conftest import cli, elsewhere
from tests.daemon.conftest import make_agent

__all__ = ["cli", "elsewhere", "house", "make_agent", "open_house"]
