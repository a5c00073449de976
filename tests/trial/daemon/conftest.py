"""The agents of tests/daemon, for what takes longer."""

from tests.daemon.conftest import agent, make_agent

__all__ = ["agent", "make_agent"]
