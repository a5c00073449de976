"""An agent, and the server and the commands over what stands in for one."""

from tests.api.conftest import house, local, open_house
from tests.cli.conftest import cli
from tests.daemon.conftest import make_agent

__all__ = ["cli", "house", "local", "make_agent", "open_house"]
