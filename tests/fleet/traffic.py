"""Messages in and out of a session of a fleet, by whichever machine answers, and what became of
them."""

import asyncio
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from agent.fleet.key import piece_context
from tests.fleet.agent import FleetAgent
from tests.fleet.agents import FleetOfAgents

FROM, TO = "5511900000002", ("5511777777771", "5511777777772")
_TEXT = re.compile(r'"text": ?"(in \d+)"')
PASSING = (408, 409, 429, 500, 502, 503)


class Traffic:
    """Of one sandbox session; each text is a number."""

    def __init__(self, fleet: FleetOfAgents, id: str, seed: int = 1) -> None:
        self.fleet, self.id = fleet, id
        self.said: list[str] = []
        """What contacts wrote, and the session's WhatsApp has it for sure."""
        self.sent: list[str] = []
        """What was accepted."""
        self.read: list[dict[str, Any]] = []
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self.cursor = 0

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer of a machine; again, by another one, while it is that of a moment."""
        while True:
            machines = [it for it in self.fleet.agents.values() if it.runs]
            if machines:
                status, answer = await _ask(
                    self._chance.choice(machines), method, path, body, headers
                )
                if status < 300:
                    return answer
                assert status in PASSING, (method, path, status, answer)
            await asyncio.sleep(0.1)

    async def say(self) -> None:
        """A contact writes; a try that failed is made again under the same id."""
        number = next(self._numbers)
        body = {"contact": FROM, "text": f"in {number}", "message_id": f"IN{number:06d}"}
        await self.ask("POST", f"/api/instance/{self.id}/sandbox/say", body)
        self.said.append(f"in {number}")

    async def send(self) -> None:
        number = next(self._numbers)
        body = {"to": TO[number % len(TO)], "text": f"out {number}"}
        key = f"{self.id}-{number}"
        await self.ask(
            "POST", f"/api/instance/{self.id}/messages", body, **{"Idempotency-Key": key}
        )
        self.sent.append(f"out {number}")

    async def poll(self) -> None:
        path = f"/api/instance/{self.id}/messages?after={self.cursor}&wait=1"
        page = await self.ask("GET", path)
        self.read += page["records"]
        self.cursor = page["next"]

    @asynccontextmanager
    async def flowing(self, pause: float = 0.05) -> AsyncIterator[None]:
        async def again(work: Any) -> None:
            while True:
                await work()
                await asyncio.sleep(self._chance.uniform(0, 2 * pause))

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(again(it)) for it in (self.say, self.send)]
            tasks.append(group.create_task(self._read()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    async def _read(self) -> None:
        while True:
            await self.poll()

    def texts(self) -> Counter[str]:
        """What a reader got, each thing by its id once."""
        by_id = {it["id"]: it for it in self.read}
        return Counter(
            it["text"] for it in by_id.values() if it["kind"] == "message" and not it["from_me"]
        )

    def gaps(self) -> Sequence[dict[str, Any]]:
        return [it for it in self.read if it["kind"] == "message_gap"]

    async def lost_in(self) -> list[str]:
        await self.poll()
        got = self.texts().keys() | self._held_by_whatsapp()
        return [text for text in self.said if text not in got]

    async def stored(self) -> set[str]:
        """What the fleet's database has of it."""
        rows = await self.fleet.rows("SELECT session, epoch, name, packed FROM wa_agent.baggage")
        found: set[str] = set()
        for session, epoch, name, piece in rows:
            content = self.fleet.key.open(piece_context(session, epoch, name), piece)
            found |= set(_TEXT.findall(content.decode(errors="replace")))
        return found

    def _held_by_whatsapp(self) -> set[str]:
        """What no machine ever kept: WhatsApp, which the sandbox plays on one machine only, has it
        and would give it to the next login."""
        given, kept = self._texts_in("whatsapp/waiting.jsonl"), self._texts_in("messages/*.log")
        return given - kept

    def _texts_in(self, files: str) -> set[str]:
        found: set[str] = set()
        for machine in self.fleet.agents.values():
            for path in (machine.state / "sessions").glob(f"**/{files}"):
                with suppress(FileNotFoundError):  # its session leaves just now
                    found |= set(_TEXT.findall(path.read_text()))
        return found

    def heard(self) -> Counter[str]:
        """What the contacts' phones show: they take an id once, whichever machine it came from."""
        by_id: dict[str, str] = {}
        lines: list[str] = []
        for machine in self.fleet.agents.values():
            for path in machine.state.rglob("heard.jsonl"):
                with suppress(FileNotFoundError):  # its session leaves just now
                    lines += path.read_text().splitlines()
        for line in lines:
            with suppress(ValueError):  # it is being written
                found = json.loads(line)
                by_id[found["id"]] = found.get("text", "")
        return Counter(by_id.values())

    def lost_out(self) -> list[str]:
        heard = self.heard()
        return [text for text in self.sent if text not in heard]

    def doubled(self) -> dict[str, int]:
        found = self.texts() + self.heard()
        return {text: count for text, count in found.items() if count > 1}


async def _ask(
    machine: FleetAgent, method: str, path: str, body: Any, headers: dict[str, str]
) -> tuple[int, Any]:
    connector = aiohttp.UnixConnector(str(machine.state / "api.sock"))
    timeout = aiohttp.ClientTimeout(total=15)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
            client.request(method, f"http://localhost{path}", json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return 503, str(error)
