"""A test's server closes every connection, whenever it came."""

import asyncio
import contextlib
import gc
import socket

import pytest

from tests.listener import listening


async def never_ends(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("steps", range(6))
async def test_no_socket_stays_open_at_any_step_of_a_new_connection(steps: int) -> None:
    with socket.socket() as client:
        async with listening(never_ends) as port:
            client.connect(("127.0.0.1", port))
            for _ in range(steps):
                await asyncio.sleep(0)
        client.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    gc.collect()  # a ResourceWarning of what was left open fails this test
