"""Who reads what arrives: a webhook's target that is killed, and readers with a cursor."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.messages.beds import NotNow, ask
from scripts.messages.supervised import Supervised
from scripts.messages.tally import Tally
from tests.daemon.conftest import RunningAgent
from tests.ports import free_port

WAIT = 20


class Target:
    def __init__(self, root: Path) -> None:
        self.port = free_port()
        self._file = root / "posted.jsonl"
        self._read = 0
        program = Path(__file__).with_name("target.py")
        command: list[str | Path] = [sys.executable, program, str(self.port), self._file]
        self.process = Supervised(command, root / "target.log")

    def count(self, tallies: Mapping[str, Tally]) -> None:
        """Count the records that it got since the last look."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # by a kill; what follows it begins behind its rest
                self._read += len(line)
                self._count(line, tallies)

    def _count(self, line: bytes, tallies: Mapping[str, Tally]) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        tally = tallies.get(event.get("instance", ""))
        record: Mapping[str, Any] = event.get("message", event)
        if tally is not None and is_of_load(record):
            tally.posted[record["text"]][record["id"]] += 1


async def read_on(agent: RunningAgent, id: str, tally: Tally) -> None:
    """For ever, from the oldest on."""
    after = 0
    while True:
        path = f"/api/instance/{id}/messages?after={after}&wait={WAIT}&limit=500"
        try:
            page = await ask(agent, "GET", path)
        except NotNow:
            await asyncio.sleep(0.2)
            continue
        for record in page["records"]:
            if record["kind"] == "message_gap":
                tally.gaps += record.get("missing", 1)
            elif is_of_load(record):
                tally.read[record["text"]].add(record["cursor"])
        after = page["next"]


def is_of_load(record: Mapping[str, Any]) -> bool:
    return (
        record.get("kind") == "message"
        and not record.get("from_me")
        and str(record.get("text", "")).startswith("in ")
    )
