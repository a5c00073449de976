"""The server and the commands over what stands in for an agent."""

from tests.api.conftest import house, open_house
from tests.cli.conftest import cli, elsewhere

__all__ = ["cli", "elsewhere", "house", "open_house"]
