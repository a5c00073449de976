"""Worlds with servers of other programs: real sockets, so the clock waits for the kernel."""

from tests.backends.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
"""The other fixtures are those of tests/world."""
