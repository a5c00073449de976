"""What must be on the disk after a run, looked at without a fault."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.wings.messages.media.shelf import Shelf
from agent.wings.messages.out.database import NAME
from agent.wings.messages.out.file import FOLDER, OutboxFiles
from agent.wings.messages.out.store import OutboxStore
from tests.trial.hostile.filling.keeper import MOST, SHELF
from tests.wings.messages.spools import read_all, segments, spool_at

FEWEST = MOST - MOST // 16 - 1
"""Records that a full spool still has when its oldest segment went."""


@dataclass(slots=True)
class Disk:
    """Of one case: what was acknowledged on it so far."""

    folder: Path
    number: int = 0
    waiting: list[int] = field(default_factory=list)
    """What WhatsApp gives again."""
    kept: set[int] = field(default_factory=set)
    spoiled: set[int] = field(default_factory=set)
    """What was damaged, so that it may be gone."""
    stored: dict[str, str] = field(default_factory=dict)
    taken: dict[str, tuple[str, int]] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    def note(self, told: dict[str, Any]) -> None:
        assert "broke" not in told, told["broke"]
        assert "aside" not in told, f"a whole outbox counted as damaged: {told}"
        assert told.get("refused", "why") != "", "a refusal without a reason"
        self.kept.update(told.get("kept", ()))
        self.number = told.get("number", self.number)
        self.waiting = told.get("waiting", self.waiting)
        if "stored" in told:
            self.stored[told["stored"]] = told["sha256"]
        if "taken" in told:
            self.taken[told["taken"]] = told["file"], told["size"]
        for name, where in (("ending", self.ending), ("ended", self.ended)):
            if name in told:
                where.add(told[name])

    def spoil(self, at: int) -> None:
        """A byte of a line of the spool that is not the last one of its file."""
        files = [each for each in segments(self.folder) if each.read_bytes().count(b"\n") > 2]
        if not files:
            return
        file = files[at % len(files)]
        lines = file.read_bytes().splitlines(keepends=True)
        line = lines[at % (len(lines) - 2)]
        body = json.loads(line.split(b"\t", 4)[4])
        self.spoiled.add(int(body["message_id"]))
        file.write_bytes(file.read_bytes().replace(line, line.replace(b'"v"', b'"?"'), 1))

    async def check(self, what: str) -> None:
        if what == "spool":
            await asyncio.to_thread(self._check_spool)
        elif what == "media":
            await asyncio.to_thread(self._check_media)
        else:
            await self._check_outbox()

    def _check_spool(self) -> None:
        spool = spool_at(self.folder, most=MOST)
        records = read_all(spool)
        found = [int(each["message_id"]) for each in records if each["kind"] == "message"]
        spool.close()
        assert len(found) == len(set(found)), f"kept twice: {found}"
        cursors = [each["cursor"] for each in records]
        assert cursors == sorted(set(cursors)), "cursors do not rise"
        oldest = min(found, default=0)
        lost = {n for n in self.kept if n >= oldest} - set(found) - self.spoiled
        assert not lost, f"lost: {sorted(lost)}"
        should = min(len(self.kept - self.spoiled), FEWEST - len(self.spoiled))
        assert len(found) >= should, f"{len(found)} of {len(self.kept)} are left"

    def _check_media(self) -> None:
        shelf = Shelf(self.folder / "media", SHELF)
        assert shelf.state()[1] <= SHELF
        for name, sha256 in self.stored.items():
            if shelf.size_of(name) is not None:
                assert shelf.is_whole(name, sha256), f"the file {name} is not what was stored"
        newest = max(self.stored, default="")
        assert not newest or shelf.size_of(newest) is not None, "the newest file is gone"

    async def _check_outbox(self) -> None:
        if not (self.folder / NAME).exists():
            assert not self.taken
            return
        store = await OutboxStore.open(self.folder / NAME)
        try:
            assert not store.sentences, store.sentences
            waiting = {row.id: row for row in await store.waiting()}
        finally:
            await store.close()
        lost = set(self.taken) - self.ending - set(waiting)
        assert not lost, f"lost: {sorted(lost)}"
        assert not self.ended & set(waiting), "what was sent would be sent again"
        files = OutboxFiles(self.folder / FOLDER)
        for id in set(self.taken) & set(waiting):
            name, size = self.taken[id]
            if name:
                assert files.read(name) == id.encode() * size, f"the file of {id} is another one"
