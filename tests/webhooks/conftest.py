"""An agent, and the server and the commands over what stands in for one."""

from tests.api.conftest import house, local, open_house
from tests.cli.conftest import cli

__all__ = ["cli", "house", "local", "open_house"]
