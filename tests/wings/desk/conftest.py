"""A real agent."""

from tests.daemon.conftest import make_agent

__all__ = ["make_agent"]
