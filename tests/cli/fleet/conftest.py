"""`wa-agent fleet` against the fleet's JSON on a real Unix socket."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.cli.conftest import Cli, calling


def machine(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": f"https://{name}.example:8471",
        "alive": True,
        "reachable": True,
        "drained": False,
        "version": "1.4.0",
        "labels": {},
        "capacity": 100,
        "sessions": 3,
        "engines": ["baileys", "sandbox"],
        "seconds_since_renewal": 2.0,
        **more,
    }


class FleetApi:
    """Answers as an agent of a fleet; `answers` holds the next ones of a path, the last stays."""

    def __init__(self) -> None:
        self.fleet: dict[str, Any] = {
            "machine": "a",
            "address": "https://a.example:8471",
            "database": {"reachable": True, "error": "", "since_seconds": 90.0},
            "lease": {"holds": True, "seconds_left": 14.2, "by": "renewal"},
            "halted": "",
            "settled": True,
            "machines": [machine("a"), machine("b", labels={"zone": "west"})],
            "machines_as_of_seconds": 0.0,
            "waiting": [],
            "moving": [],
        }
        self.answers: dict[str, list[Any]] = {"/api/fleet": [self.fleet]}
        self.asked: list[tuple[str, str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/healthz":
            return web.json_response({})
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path_qs, body))
        waiting = self.answers.get(request.path, [{}])
        found = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(found, str):
            return web.Response(text=found)
        if "error" in found:
            return web.json_response(found, status=found["status"])
        return web.json_response(found)

    def posted(self) -> list[tuple[str, Any]]:
        return [(path, body) for method, path, body in self.asked if method == "POST"]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[FleetApi]:
    api, app = FleetApi(), web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "api.sock")).start()
    yield api
    await runner.cleanup()


@pytest.fixture
def cli(
    api: FleetApi,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    return calling(tmp_path / "api.sock", capsys, monkeypatch)
