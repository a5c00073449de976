"""What the sandbox's contacts got, as their phones show it: a message that comes again with the id
of an earlier one is the same message."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.engines.sandbox.chat.line_file import LineFile
from agent.errors import EngineError

NAME = "heard.jsonl"
MOST_BYTES = 4 << 20
"""Of the file; past it the older half is forgotten."""
ANSWER_BYTES = 256 << 10
"""Of one page; a message between worker and agent has at most four times as much."""


class Contacts:
    """All contacts of one account."""

    def __init__(self, folder: Path) -> None:
        self._file = LineFile(folder / NAME)
        self._got: dict[tuple[str, str], int] | None = None
        self._newest = 0

    def receive(self, chat: str, id: str, message: Mapping[str, Any]) -> bool:
        """On the contact's phone when this returns; False: it was there already."""
        got = self._known()
        if (chat, id) in got:
            return False
        try:
            if self._file.size > MOST_BYTES:
                self._forget_half()
            self._file.append({"cursor": self._newest + 1, "chat": chat, "id": id, **message})
        except OSError as error:
            raise EngineError(f"cannot deliver: {error}", code="save_failed") from error
        self._newest += 1
        got[chat, id] = self._newest
        return True

    def has(self, chat: str, id: str) -> bool:
        return (chat, id) in self._known()

    def page(self, after: int, limit: int) -> Mapping[str, Any]:
        """The messages after that cursor, and the cursor of the last one of them."""
        self._known()
        found: list[Mapping[str, Any]] = []
        size, more = 0, False
        for line in self._lines():
            if line.get("cursor", 0) > after:
                size += len(str(line))
                more = len(found) == limit or (size > ANSWER_BYTES and bool(found))
                if more:
                    break
                found.append(line)
        last = found[-1]["cursor"] if found else max(after, 0)
        return {"messages": found, "next": last, "more": more}

    def _known(self) -> dict[tuple[str, str], int]:
        if self._got is None:
            lines = list(self._lines())
            self._got = {(line["chat"], line["id"]): line["cursor"] for line in lines}
            self._newest = max(self._got.values(), default=0)
        return self._got

    def _lines(self) -> Iterator[Mapping[str, Any]]:
        try:
            yield from self._file.read()
        except OSError as error:
            raise EngineError(f"cannot read messages: {error}", code="unreadable") from error

    def _forget_half(self) -> None:
        lines = list(self._lines())
        self._file.replace(lines[len(lines) // 2 :])
        self._got = {
            (line["chat"], line["id"]): line["cursor"] for line in lines[len(lines) // 2 :]
        }
