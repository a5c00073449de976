"""Sessions of the baileys engine on one agent in front of the tests' stand-in for WhatsApp, paired;
and what their histories say."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.errors import HostError
from tests.daemon.conftest import RunningAgent
from tests.engines.baileys.conftest import make_cache
from tests.standin.baileys.run import WhatsApp

SETTINGS = '[agent]\nhost = "process"\n\n[start]\nstagger = 0\nlogin_every = 0\n'
PAIRED = 120.0
"""Seconds until a session is paired."""
UNDER_WAY = 15.0
"""Seconds for which a message waits behind those that cannot be read, a quarter of one for each."""
JUST_BEFORE = 0.5
"""Seconds by which a claim may be older than the kill that it tells of: two clocks were read."""


@dataclass(slots=True)
class Session:
    id: str
    account: str
    said: dict[str, float] = field(default_factory=dict)
    """Messages of friends, and when each was written."""
    kills: list[tuple[float, float]] = field(default_factory=list)
    """From when to when it was down for one."""
    cases: int = 0
    stanzas: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    cursor: int = 0

    def is_killed(self, at: float) -> bool:
        return any(begun - JUST_BEFORE < at < end for begun, end in self.kills)

    def was_under_way(self, id: str) -> bool:
        """A kill came while this message may have been worked on: it had come, or came again."""
        at = self.said[id]
        return any(begun - UNDER_WAY < at < end + UNDER_WAY for begun, end in self.kills)

    def drops(self) -> list[str]:
        """Each time that it was down and no kill was the cause."""
        return [
            f"{each['time']} {self.id}: {each['sentence']}"
            for each in self.events
            if each["kind"] == "status"
            and each["detail"].get("before") == "CONNECTED"
            and not self.is_killed(_when(each))
        ]

    def codes(self) -> int:
        """How often it showed a code after the first."""
        shown = [e for e in self.events if e["kind"] == "status" and "→ QR" in e["sentence"]]
        return max(len(shown) - 1, 0)


class PairedSessions:
    """`begin` first: the stack ends it all."""

    def __init__(self, root: Path, count: int) -> None:
        self._root = root
        self.each = [Session(f"s{n}", f"551190000{n:04d}") for n in range(1, count + 1)]

    async def begin(self, stack: AsyncExitStack) -> None:
        """WhatsApp, and an agent with all sessions paired."""
        self.whatsapp = WhatsApp(self._root / "whatsapp.log")
        stack.callback(self.whatsapp.end)
        config = self._root / "agent.toml"
        config.write_text(SETTINGS, encoding="utf-8")
        self.agent = RunningAgent(self._root / "state", config)
        stack.push_async_callback(self.agent.close)
        await self._start()
        for session in self.each:
            await self._pair(session)

    async def _start(self) -> None:
        self.agent.state.mkdir(mode=0o700)
        (self.agent.state / "cache").symlink_to(make_cache(self._root / "cache"))
        await self.agent.start()

    async def _pair(self, session: Session) -> None:
        settings = {"url": self.whatsapp.socket}
        body = {"id": session.id, "engine": "baileys", "settings": settings}
        await self.agent.do("POST", "/api/instance", body)
        await self._until(session, "QR_REQUIRED", PAIRED)
        code = await self.agent.do("GET", f"/api/instance/{session.id}/qr")
        await asyncio.to_thread(self.whatsapp.scan, code["qr"], session.account)
        await self._until(session, "CONNECTED", PAIRED)

    async def _until(self, session: Session, status: str, within: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while await self.agent.status(session.id) != status:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
                return
        raise HostError(f"{session.id} is not {status} within {within:.0f} s")

    def came_back(self, session: Session, begun: float) -> bool:
        news = [e for e in session.events if e["kind"] == "status" and _when(e) > begun]
        back = [_when(e) for e in news if "→ CONNECTED" in e["sentence"]]
        if back:
            session.kills[-1] = (begun, back[0])
        return bool(back)

    async def look(self) -> None:
        for session in self.each:
            await self.look_at(session)

    async def look_at(self, session: Session) -> None:
        path = f"/api/instance/{session.id}/events?limit=500&after={session.cursor}"
        for each in (await self.agent.do("GET", path))["events"]:
            if each["cursor"] > session.cursor:
                session.cursor = each["cursor"]
                session.events.append(each)


def _when(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()
