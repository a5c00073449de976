"""An agent, and the server over what stands in for one."""

from tests.api.conftest import house, local, open_house
from tests.daemon.conftest import make_agent
from tests.page.browsing import listening, watcher

__all__ = ["house", "listening", "local", "make_agent", "open_house", "watcher"]
