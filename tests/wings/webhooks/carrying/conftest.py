"""Couriers and their targets in one loop and in virtual time."""

from tests.backends.conftest import pytest_asyncio_loop_factories, virtual_clocks

__all__ = ["pytest_asyncio_loop_factories", "virtual_clocks"]
