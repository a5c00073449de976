"""What the interface shows of why a session fails, of a real worker."""

import json
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent

NOTE = {"why": "the page did not load", "claim": "LOADING start_stuck loaded"}


async def test_a_workers_last_lines_and_its_failed_starts_are_shown(
    make_agent: Callable[..., RunningAgent], eventually: Eventually
) -> None:
    agent = make_agent()
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")

    async def last_lines() -> dict[str, Any]:
        found: dict[str, Any] = await agent.do("GET", "/api/instance/sales/worker-lines")
        return found if any("CONNECTED" in line for line in found["lines"]) else {}

    found = await eventually(last_lines)
    assert found["command"].startswith("tail -n 60 ")
    log = agent.state / "run" / "sales" / "worker.log"
    with log.open("a") as file:
        file.write("Authorization: Bearer wak_abcdefgh_0123456789abcdef\n" * 3)
    found = await agent.do("GET", "/api/instance/sales/worker-lines")
    assert len(found["lines"]) <= 60
    assert "0123456789abcdef" not in str(found)

    assert (await agent.do("GET", "/api/instance/sales/failed-starts"))["failed_starts"] == []
    folder = agent.state / "sessions" / "sales" / "session" / "diagnostics"
    folder.mkdir()
    (folder / "20261120T101112Z.json").write_text(json.dumps(NOTE))
    (folder / "20261120T101112Z.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (one,) = (await agent.do("GET", "/api/instance/sales/failed-starts"))["failed_starts"]
    assert one == {"name": "20261120T101112Z", "seen": NOTE, "picture": True}
    connector = aiohttp.UnixConnector(str(agent.state / "api.sock"))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as client:
        path = "/api/instance/sales/failed-starts/20261120T101112Z/picture"
        async with client.get(path) as answer:
            assert (answer.status, answer.content_type) == (200, "image/jpeg")
            assert await answer.read() == b"\xff\xd8\xff\xe0"
    status, _ = await agent.ask("GET", "/api/instance/no/worker-lines")
    assert status == 404


async def test_the_figures_of_one_session_are_measured_when_its_page_is_read(
    make_agent: Callable[..., RunningAgent], eventually: Eventually
) -> None:
    agent = make_agent("\n[memory]\ninterval = 3600\n")
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    shown = await agent.do("GET", "/api/instance/sales/details")
    assert shown["memory_bytes"] > 1 << 20
    assert shown["cpu_seconds"] is not None
