"""The command line against the real server over a supervisor in memory."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.cli.command import run
from tests.api.conftest import House, house, open_house

__all__ = ["house", "open_house"]


@dataclass
class Said:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Awaitable[Said]]


@pytest.fixture
def cli(house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    return calling(house.socket_path, capsys, monkeypatch)


def calling(
    socket: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """Run one command in a thread of its own, as the server lives in this one. A machine that
    pauses makes no agent of a test one that hangs."""
    monkeypatch.setattr("agent.cli.client._HELLO_SECONDS", 60.0)
    monkeypatch.setenv("WA_AGENT_SOCKET", str(socket))
    for name in ("WA_AGENT_URL", "WA_AGENT_KEY", "WA_AGENT_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    async def call(*argv: str) -> Said:
        status = await asyncio.to_thread(run, [str(word) for word in argv])
        found = capsys.readouterr()
        return Said(status, found.out, found.err)

    return call


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
