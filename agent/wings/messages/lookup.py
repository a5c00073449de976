"""Finds messages among those that are kept: by WhatsApp's ids, and those of a chat that were not
marked as read yet."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol, TypeVar, TypeVarTuple

from agent.errors import InvalidRequest
from agent.files import replacement
from agent.wings.messages.record import LONGEST_WORD, MESSAGE, PRIVATE
from agent.wings.messages.spool.folder import Folder
from agent.wings.messages.spool.line import BEYOND, Line
from agent.wings.messages.spool.spool import Spool
from agent.worker.calls import Answer, Work

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RAW = f"{PRIVATE}raw"
MOST_FOUND = 200
"""Messages of one question."""
MOST_UNREAD = 1000
NAME = "read.json"
MOST_MARKED = 2000
"""Chats; those that were marked longest ago are forgotten."""
_LONGEST = 1 << 20


class Ask(Protocol):
    """Beside the loop, where nobody else uses the spool meanwhile."""

    async def __call__(self, work: Callable[[*Ts], T], /, *args: *Ts) -> T: ...


class Lookup:
    """It reads one file at a time: what arrives meanwhile is kept in between."""

    def __init__(self, spool: Spool, ask: Ask) -> None:
        self._spool = spool
        self._ask = ask

    @property
    def works(self) -> Mapping[str, Work]:
        return {
            "messages_find": self._find,
            "messages_unread": self._unread,
            "messages_marked": self._marked,
        }

    async def message(self, chat: str, message_id: str) -> Mapping[str, Any] | None:
        """The whole record of one, with what no reader gets."""
        async with aclosing(self._messages(chat, [message_id])) as found:
            return await anext(found, None)

    async def _find(self, args: Mapping[str, Any]) -> Answer:
        chat, ids = _chat(args), args.get("message_ids")
        if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
            raise InvalidRequest("cannot find messages without their ids", field="message_ids")
        found = {record["message_id"]: _shown(record) async for record in self._messages(chat, ids)}
        return {"found": found}

    async def _unread(self, args: Mapping[str, Any]) -> Answer:
        chat = _chat(args)
        marked = await self._ask(mark_of, self._spool.folder, chat)
        newest = await self._ask(lambda: self._spool.newest)
        words = [_word("chat", chat), _word("alias", chat)]
        messages: list[tuple[str, str, str]] = []
        for name, size, behind in await self._ask(self._spool.files):
            if behind <= marked + 1 or len(messages) >= MOST_UNREAD:
                break
            for record in reversed(await self._records(name, size, words, chat)):
                if marked < record["cursor"] <= newest and not record.get("from_me"):
                    its = _shown(record)
                    messages.append((record["message_id"], its["chat"], its["sender"]))
        return {"messages": messages[:MOST_UNREAD], "newest": newest}

    async def _marked(self, args: Mapping[str, Any]) -> Answer:
        chat, cursor = _chat(args), args.get("cursor")
        if not isinstance(cursor, int) or isinstance(cursor, bool):
            raise InvalidRequest("cannot mark a chat without a cursor", field="cursor")
        if self._spool.there:
            await self._ask(set_mark, self._spool.folder, chat, cursor)
        return {}

    async def _messages(
        self, chat: str, ids: Sequence[str]
    ) -> AsyncGenerator[dict[str, Any], None]:
        missing = set(ids[:MOST_FOUND])
        for name, size, _ in await self._ask(self._spool.files):
            words = [_word("message_id", id) for id in missing]
            for record in await self._records(name, size, words, chat):
                if record["message_id"] in missing:
                    missing.discard(record["message_id"])
                    yield record
            if not missing:
                break

    async def _records(
        self, name: str, size: int, words: Sequence[bytes], chat: str
    ) -> list[dict[str, Any]]:
        """The messages of that chat in one file, oldest first."""
        lines: list[Line] = await self._ask(self._spool.lines_with, name, size, words)
        records = [{**line.whole(), "cursor": line.cursor} for line in lines]
        return [record for record in records if _is_of(record, chat)]


def _is_of(record: Mapping[str, Any], chat: str) -> bool:
    if record["kind"] != MESSAGE or not record.get("message_id"):
        return False
    its = str(record.get("chat", ""))
    # A person's other name is the chat's too, but in a group.
    return chat == its or (not its.endswith("@g.us") and chat == record.get("alias"))


def _shown(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Chat and sender as WhatsApp named them with it, where its reader is shown other names."""
    raw = record.get(RAW, {})
    return {
        "chat": raw.get("chat") or record.get("chat", ""),
        "sender": raw.get("sender") or record.get("sender", ""),
        "from_me": record.get("from_me") is True,
        "type": record.get("type", ""),
        "text": record.get("text", "")[:LONGEST_WORD],
    }


def _word(name: str, value: str) -> bytes:
    """As it stands in a line."""
    return f'"{name}":{json.dumps(value, ensure_ascii=False)}'.encode("utf-8", "replace")


def _chat(args: Mapping[str, Any]) -> str:
    chat = args.get("chat")
    if not isinstance(chat, str) or not 0 < len(chat) <= LONGEST_WORD:
        raise InvalidRequest("cannot look for messages without a chat", field="chat")
    return chat


def mark_of(folder: Folder, chat: str) -> int:
    """The cursor up to which it was marked; 0 = never."""
    return _read(folder).get(chat, 0)


def set_mark(folder: Folder, chat: str, cursor: int) -> None:
    """Whole after a kill; after a power cut it may be an older one, and messages are marked twice,
    which changes nothing."""
    marks = _read(folder)
    before = marks.pop(chat, 0)
    marks[chat] = max(before, cursor)
    newest = dict(list(marks.items())[-MOST_MARKED:])
    with folder.descriptor() as fd, replacement(fd, NAME, durable=False) as file:
        file.write(json.dumps(newest).encode())


def _read(folder: Folder) -> dict[str, int]:
    """What is not there, or cannot be read, is none."""
    raw: object = None
    with suppress(OSError, ValueError, RecursionError), folder.open(NAME) as file:
        raw = json.loads(file.read(_LONGEST))
    if not isinstance(raw, dict):
        return {}
    return {chat: cursor for chat, cursor in raw.items() if _is_cursor(cursor)}


def _is_cursor(raw: object) -> bool:
    return type(raw) is int and 0 < raw < BEYOND
