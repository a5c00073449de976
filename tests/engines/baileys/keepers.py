"""The worker's side of what arrives: kept in memory, slow, on a full disk, or not at all."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import EngineError
from tests.engines.baileys.conftest import Bench, Heard


class Spool(Heard):
    """The kept records of a session, over several workers one after the other."""

    def __init__(self, kept: dict[str, Mapping[str, Any]] | None = None) -> None:
        super().__init__()
        self.kept = {} if kept is None else kept
        self.given: list[str] = []
        """The ids as they came, also again."""
        self.asked = 0
        self.full = False
        self.bad = ""
        """In the text of a record that is none."""
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    @property
    def keeps(self) -> bool:
        return True

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.asked += 1
        await self.goes_on.wait()
        if self.full:
            raise EngineError("cannot keep what arrived: the disk is full", code="not_kept")
        if self.bad and any(self.bad in record.get("text", "") for record in records):
            raise EngineError("cannot keep what arrived: no record", code="bad_record")
        for record in records:
            self.given.append(record["id"])
            self.kept.setdefault(record["id"], record)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [record for record in self.kept.values() if record["kind"] == kind]

    def texts(self) -> list[str]:
        return [record.get("text", "") for record in self.of("message") if not record["from_me"]]


def spool_of(bench: Bench) -> Spool:
    assert isinstance(bench.heard, Spool)
    return bench.heard
