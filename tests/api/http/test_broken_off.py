"""Peers that break off in the middle, and answers that could repeat what they sent."""

import asyncio
import gc
from urllib.parse import quote

import pytest

from agent.core.model import InstanceId
from tests.api.conftest import House, upgrade
from tests.backends.hostile import reset as reset_by
from tests.conftest import Eventually
from tests.fakes.supervisor import make_view

SALES = InstanceId("sales")
HALF_FRAMES = {
    "half a head": b"\x81",
    "half a message": b"\x81\x85abcdxy",
    "half an upgrade": b"",
    "a length of nonsense": b"\x82\xff" + b"\xff" * 8 + b"abcd",
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("frame", HALF_FRAMES)
async def test_f63_a_listener_that_breaks_off_is_cleaned_up_in_silence(
    house: House, eventually: Eventually, caplog: pytest.LogCaptureFixture, frame: str, reset: bool
) -> None:
    bus, connections = house.supervisor.bus, house.server._entrance.connections
    reader, writer = await asyncio.open_unix_connection(str(house.socket_path))
    whole = frame != "half an upgrade"
    writer.write(upgrade() if whole else upgrade()[:40])
    if whole:
        await reader.readuntil(b"\r\n\r\n")
        await eventually(lambda: len(bus._subscriptions), 1)
        writer.write(HALF_FRAMES[frame])
        await writer.drain()
        house.supervisor.note(SALES, "status", "x" * 70_000)  # an answer is under way as well
    if reset:
        await reset_by(writer)
    writer.close()
    await eventually(lambda: (len(bus._subscriptions), len(house.server._parts.listeners)), (0, 0))
    await eventually(lambda: len(connections), 0)
    gc.collect()  # a task whose error was never read would speak up now
    assert "Traceback" not in caplog.text
    assert not [one for one in caplog.records if one.levelname in ("ERROR", "CRITICAL")]


@pytest.mark.parametrize("path", ["/api/instance", "/api/import"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_error(
    house: House, eventually: Eventually, caplog: pytest.LogCaptureFixture, path: str, reset: bool
) -> None:
    key = (await house.key("admin"))["Authorization"]
    type = "application/gzip" if path == "/api/import" else "application/json"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n"
        f"Content-Type: {type}\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    )
    connections = house.server._entrance.connections
    await eventually(lambda: not connections)  # the one that made the key
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(head.encode())
    async with asyncio.timeout(30):
        await reader.readuntil(b"\r\n\r\n")
    writer.write(b"{")
    if reset:
        await reset_by(writer)
    writer.transport.abort()
    await eventually(lambda: not connections)
    waiting = [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task)]
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 30)
    assert not [one for one in caplog.records if one.levelname in ("ERROR", "CRITICAL")]


KNOWN_HEADERS = {
    *("allow", "cache-control", "connection", "content-length", "content-type", "date", "server"),
    *("referrer-policy", "x-content-type-options", "x-request-id"),
}
FOUL = "a\r\nSet-Cookie: x=1\r\n\r\n<script>"


@pytest.mark.parametrize(
    "target",
    [
        f"/api/instance/{quote(FOUL)}",
        f"/api/instance/sales/events?kind={quote(FOUL)}",
        f"/healthz?{quote(FOUL)}",
    ],
)
async def test_f71_nothing_that_was_sent_becomes_a_header_of_the_answer(
    house: House, target: str
) -> None:
    house.supervisor.known[SALES] = make_view("sales")
    key = (await house.key("admin"))["Authorization"]
    sent = (
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n"
        f"X-Request-Id: {quote(FOUL)}\r\nIdempotency-Key: {quote(FOUL)}\r\n"
        f"Accept: text/{quote(FOUL)}\r\nConnection: close\r\n\r\n"
    )
    head, _, body = (await house.raw(sent.encode())).partition(b"\r\n\r\n")
    names = {line.partition(b":")[0].decode().lower() for line in head.split(b"\r\n")[1:]}
    assert names <= KNOWN_HEADERS
    assert b"Set-Cookie" not in head
    assert b"<script>" not in body or b"application/json" in head
    assert b"nosniff" in head
