"""An agent, and the server and the commands over what stands in for one."""

from tests.api.conftest import house, open_house
from tests.daemon.conftest import make_agent

__all__ = ["house", "make_agent", "open_house"]
