"""Each test of this folder runs in virtual time, with the limits that a worker has."""

from tests.messages.conftest import pytest_asyncio_loop_factories, virtual_clocks

__all__ = ["pytest_asyncio_loop_factories", "virtual_clocks"]
