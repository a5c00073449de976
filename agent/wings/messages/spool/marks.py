"""How far each chat of a session was marked as read."""

import json
from contextlib import suppress

from agent.files import replacement
from agent.wings.messages.spool.folder import Folder
from agent.wings.messages.spool.line import BEYOND

NAME = "read.json"
MOST = 2000
"""Chats; those that were marked longest ago are forgotten."""
_LONGEST = 1 << 20


def mark_of(folder: Folder, chat: str) -> int:
    """The cursor up to which it was marked; 0 = never."""
    return _read(folder).get(chat, 0)


def set_mark(folder: Folder, chat: str, cursor: int) -> None:
    """Whole after a kill; after a power cut it may be an older one, and messages are marked twice,
    which changes nothing."""
    marks = _read(folder)
    before = marks.pop(chat, 0)
    marks[chat] = max(before, cursor)
    newest = dict(list(marks.items())[-MOST:])
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
