"""Records of one session on their way to a target: in order within a chat, chats side by side, so
that a slow answer for one contact holds up no other one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Record = Mapping[str, Any]
Deliver = Callable[[Record], Awaitable[None]]
_GROUP = "@g.us"


class Chats:
    """Its tasks belong to the group, which hears of their errors."""

    def __init__(
        self, group: asyncio.TaskGroup, deliver: Deliver, at: int, moved: Callable[[], None]
    ) -> None:
        """`at`: the cursor up to which all is settled; `moved`: called after each record."""
        self.read_to = at
        """All up to it was added, or is not wanted."""
        self._group = group
        self._deliver = deliver
        self._moved = moved
        self._open: dict[int, Record] = {}
        """By cursor, oldest first."""
        self._lines: dict[str, deque[Record]] = {}
        """By jid; both jids of one person have one line."""
        self._changed = asyncio.Event()

    @property
    def settled(self) -> int:
        """All up to this cursor is settled."""
        return next(iter(self._open)) - 1 if self._open else self.read_to

    @property
    def oldest(self) -> Record | None:
        return next(iter(self._open.values()), None)

    @property
    def under_way(self) -> int:
        return len(self._open)

    def add(self, record: Record) -> None:
        cursor = self.read_to = int(record["cursor"])
        self._open[cursor] = record
        names = _names(record)
        line = next((self._lines[name] for name in names if name in self._lines), None)
        if line is None:
            line = deque[Record]()
            self._group.create_task(self._carry(line))
        line.append(record)
        self._lines |= dict.fromkeys(names, line)

    async def until(self, most: int) -> None:
        """No more than so many are under way."""
        while len(self._open) > most:
            await self.change()

    async def change(self) -> None:
        """The next record is settled, or there is something to read."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        self._changed.set()

    async def _carry(self, line: deque[Record]) -> None:
        while line:
            await self._deliver(line[0])
            del self._open[int(line.popleft()["cursor"])]
            if not line:
                self._lines = {name: its for name, its in self._lines.items() if its is not line}
            self._moved()
            self.wake()


def _names(record: Record) -> list[str]:
    """Whose line it stands in. A person may have a number and a lid; a group's alias is that of the
    sender."""
    chat, alias = str(record.get("chat", "")), str(record.get("alias", ""))
    return [chat, alias] if alias and not chat.endswith(_GROUP) else [chat]
