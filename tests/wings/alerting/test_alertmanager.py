"""An Alertmanager gets the whole picture, in batches, again after a failure; no caller waits."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web

from agent.wings.alerting.alertmanager import BATCH, Alertmanager, Raised
from tests.conftest import Eventually
from tests.ports import free_port


class Server:
    """Answers as it is told, and keeps what it heard."""

    def __init__(self) -> None:
        self.heard: list[list[dict[str, Any]]] = []
        self.refused, self.status = "", 200
        """The status is for what holds an alert of this name; all else is heard."""
        self.answering = asyncio.Event()
        self.answering.set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        await self.answering.wait()
        alerts = await request.json()
        if self.refused in [each["labels"]["alertname"] for each in alerts]:
            where = {"Location": "/elsewhere"}
            return web.Response(status=self.status, text="no room", headers=where)
        self.heard.append(alerts)
        return web.Response()

    @asynccontextmanager
    async def open(self, port: int = 0) -> AsyncIterator[int]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/api/v2/alerts", self.take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        # One that no other program can get between two openings.
        port = port or free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield port
        finally:
            await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    async with one.open():
        yield one


Running = Callable[[Alertmanager], Awaitable[None]]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    tasks: list[asyncio.Task[None]] = []

    async def run(one: Alertmanager) -> None:
        tasks.append(asyncio.create_task(one.run()))

    yield run
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def impatient(url: str, repeat: float = 30.0) -> Alertmanager:
    return Alertmanager(url, repeat=repeat, first_delay=0.02, longest_delay=0.1)


def raised(name: str, ends: float | None = None) -> Raised:
    return Raised({"alertname": name, "machine": "m"}, {"summary": "s"}, 1_800_000_000.5, ends)


async def test_firing_and_resolved_alerts_are_sent_at_once(
    server: Server, running: Running, eventually: Eventually
) -> None:
    one = impatient(f"{server.url}/")
    one.tell([raised("A"), raised("B", 1_800_000_060.0)], changed=True)
    await running(one)
    await eventually(lambda: len(server.heard), 1)
    fires, over = server.heard[0]
    assert fires["labels"] == {"alertname": "A", "machine": "m"}
    assert fires["startsAt"] == "2027-01-15T08:00:00.500Z"
    ends = datetime.fromisoformat(fires["endsAt"])
    assert 60 < ends.timestamp() - datetime.now().timestamp() <= 120 + 1
    assert over["endsAt"] == "2027-01-15T08:01:00.000Z"
    await eventually(lambda: one.delivered_wall is not None)
    one.tell([raised("C")], changed=True)
    await eventually(lambda: server.heard[-1][0]["labels"]["alertname"], "C")


async def test_the_picture_is_repeated(
    server: Server, running: Running, eventually: Eventually
) -> None:
    one = impatient(server.url, repeat=0.05)
    one.tell([raised("A")], changed=False)
    await running(one)
    await eventually(lambda: len(server.heard) >= 3)


async def test_a_thousand_go_in_batches(
    server: Server, running: Running, eventually: Eventually
) -> None:
    one = impatient(server.url)
    one.tell([raised(f"A{number}") for number in range(1000)], changed=True)
    await running(one)
    await eventually(lambda: sum(map(len, server.heard)), 1000)
    assert max(map(len, server.heard)) <= BATCH


@pytest.mark.parametrize("status", [400, 500, 503, 302])
async def test_a_refusal_is_tried_again_and_said_once(
    server: Server,
    running: Running,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    server.refused, server.status = "old", status
    one = impatient(server.url)
    one.tell([raised("old")], changed=True)
    await running(one)
    await eventually(lambda: one.problem)
    assert f"it answered {status}" in one.problem
    one.tell([raised("new")], changed=True)
    # What was true meanwhile and is no more is not told late: it would be refused for ever.
    await eventually(lambda: server.heard)
    assert [each["labels"]["alertname"] for each in server.heard[0]] == ["new"]
    await eventually(lambda: one.problem, "")
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1


async def test_an_alertmanager_that_comes_up_later_gets_the_alerts(
    running: Running, eventually: Eventually
) -> None:
    server = Server()
    async with server.open() as port:
        url = server.url
    one = impatient(url)
    one.tell([raised("A")], changed=True)
    await running(one)
    await eventually(lambda: one.problem)
    async with server.open(port):
        await eventually(lambda: server.heard)


async def test_an_alertmanager_that_never_answers_delays_nothing_else(
    server: Server, running: Running, eventually: Eventually
) -> None:
    server.answering.clear()
    one = impatient(server.url)
    one.tell([raised("A")], changed=True)
    await running(one)
    for number in range(10_000):
        one.tell([raised(f"A{number}")], changed=True)
    server.answering.set()
    await eventually(lambda: server.heard and server.heard[-1][0]["labels"]["alertname"], "A9999")
    assert len(server.heard) <= 3
    json.dumps(server.heard)
