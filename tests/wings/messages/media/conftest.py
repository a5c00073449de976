"""An agent whose sandbox has contacts that send files."""

from tests.daemon.conftest import agent, make_agent

__all__ = ["agent", "make_agent"]
