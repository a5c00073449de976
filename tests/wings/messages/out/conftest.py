"""An agent whose sandbox shows what its contacts got."""

from tests.daemon.conftest import agent, make_agent

__all__ = ["agent", "make_agent"]
