"""What must be on the disk after a run, looked at without a fault."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.messages.outbox import NAME, Mark, Outbox
from agent.messages.sending import FOLDER
from tests.messages.records import file_at, read_all
from tests.trial.hostile.filling.keeper import MOST

FEWEST = MOST - MOST // 64 - 1
"""Records that a full session still has when its oldest went."""


@dataclass(slots=True)
class Disk:
    """Of one case: what was acknowledged on it so far."""

    folder: Path
    number: int = 0
    waiting: list[int] = field(default_factory=list)
    """What WhatsApp gives again."""
    kept: set[int] = field(default_factory=set)
    taken: dict[str, tuple[str, int]] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    mark: list[Any] | None = None
    """What the agent's database knows of the outbox."""

    def note(self, told: dict[str, Any]) -> None:
        assert "broke" not in told, told["broke"]
        assert "aside" not in told, f"a whole file counted as damaged: {told}"
        assert told.get("refused", "why") != "", "a refusal without a reason"
        self.kept.update(told.get("kept", ()))
        self.number = told.get("number", self.number)
        self.waiting = told.get("waiting", self.waiting)
        self.mark = told.get("mark", self.mark)
        if "taken" in told:
            self.taken[told["taken"]] = told["file"], told["size"]
        for name, where in (("ending", self.ending), ("ended", self.ended)):
            if name in told:
                where.add(told[name])

    async def check(self, what: str) -> None:
        if what == "incoming":
            await asyncio.to_thread(self._check_incoming)
        else:
            await self._check_outbox()

    def _check_incoming(self) -> None:
        file = file_at(self.folder, most=MOST)
        records = read_all(file)
        found = [int(each["message_id"]) for each in records if each["kind"] == "message"]
        file.close()
        assert not file.said, file.said
        assert len(found) == len(set(found)), f"kept twice: {found}"
        cursors = [each["cursor"] for each in records]
        assert cursors == sorted(set(cursors)), "cursors do not rise"
        lost = {n for n in self.kept if n >= min(found, default=0)} - set(found)
        assert not lost, f"lost: {sorted(lost)}"
        assert len(found) >= min(len(self.kept), FEWEST), f"{len(found)} of {len(self.kept)} left"

    async def _check_outbox(self) -> None:
        if not (self.folder / NAME).exists():
            assert not self.taken
            return
        box = await Outbox.open(self.folder / NAME, Mark(*self.mark) if self.mark else None)
        try:
            assert not box.opened_so, box.opened_so
            self.mark = [box.mark.id, box.mark.times]
            waiting = {row.id: row for row in await box.waiting()}
        finally:
            await box.close()
        lost = set(self.taken) - self.ending - set(waiting)
        assert not lost, f"lost: {sorted(lost)}"
        assert not self.ended & set(waiting), "what was sent would be sent again"
        for id in set(self.taken) & set(waiting):
            name, size = self.taken[id]
            if name:
                content = (self.folder / FOLDER / name).read_bytes()
                assert content == id.encode() * size, f"the file of {id} is another one"
