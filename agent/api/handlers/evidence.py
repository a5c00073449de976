"""Why a session fails, for an operator: its worker's last lines, and an engine's notes and pictures
of failed starts. A worker writes these, so they are not trusted: no link is followed, sizes are
bounded, and a picture is one only by its first bytes."""

import asyncio
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiohttp import web

from agent.api.http.call import Call, Json
from agent.api.http.fields import INTEGER, Field
from agent.core.model import InstanceId
from agent.errors import NotFound, VaultError
from agent.redaction import redact
from agent.vault.folder import SESSION, Folder, open_instance

LAST = 60
_TAIL = 64 << 10
_HEAD = re.compile(r"\[[^]]*\] \[[A-Z]+\] \[[A-Z]+\] \[([^]]*)\] ")
"""The beginning of a worker's line; the session's id is in it."""
LINES = (Field("after", INTEGER, "the `next` of the answer before: what came since", least=0),)
FOLDER = "diagnostics"
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_NOTE = re.compile(rf"{NAME.pattern}\.json")
MOST = 20
"""An engine keeps a few; further files are not listed."""
_LARGEST_NOTE = 256 << 10


async def worker_lines(call: Call) -> Json:
    """The last lines of an instance's worker.

    `lines`: null where the journal has them; then `command` shows them.
    """
    call.supervisor.view(call.id)
    path = call.supervisor.seats.log_path(call.id)
    if path is None:
        return {"lines": None, "command": f"wa-agent logs {call.id}", "next": 0, "cut": False}
    # A pack's worker writes the lines of several sessions into one file.
    only = "" if path.parent.name == call.id else call.id
    lines, next, cut = await asyncio.to_thread(read_lines, path, call.query.get("after"), only)
    return {"lines": lines, "command": f"tail -n {LAST} {path}", "next": next, "cut": cut}


async def failed_starts(call: Call) -> Json:
    """The diagnostics that an engine kept of failed starts, newest first."""
    call.supervisor.view(call.id)
    starts = await asyncio.to_thread(list_failed_starts, call.supervisor.root, call.id)
    return {"failed_starts": starts}


async def picture(call: Call) -> web.Response:
    """The picture of a failed start."""
    call.supervisor.view(call.id)
    name = call.request.match_info["failed"]
    content = await asyncio.to_thread(read_picture, call.supervisor.root, call.id, name)
    return web.Response(body=content, content_type="image/jpeg")


def list_failed_starts(root: Path, id: InstanceId) -> list[dict[str, Any]]:
    """Newest first, each by the time in its files' names; empty where the engine kept none."""
    try:
        with open_instance(root, id, SESSION, FOLDER) as folder:
            names = set(folder.names())
            notes = sorted((name for name in names if _NOTE.fullmatch(name)), reverse=True)[:MOST]
            return [
                {
                    "name": (stem := name.removesuffix(".json")),
                    "seen": _read_note(folder, name),
                    "picture": f"{stem}.jpg" in names,
                }
                for name in notes
            ]
    except VaultError:
        return []


def read_picture(root: Path, id: InstanceId, name: str) -> bytes:
    if NAME.fullmatch(name):
        try:
            with open_instance(root, id, SESSION, FOLDER) as folder:
                content = folder.content(f"{name}.jpg")
        except VaultError:
            content = b""
        if content.startswith(b"\xff\xd8\xff"):
            return content
    raise NotFound(f"cannot show the picture {name} of {id}: there is none")


def _read_note(folder: Folder, name: str) -> dict[str, Any]:
    try:
        content = folder.content(name)
        note = json.loads(redact(content[:_LARGEST_NOTE].decode(errors="replace")))
    except (VaultError, ValueError, RecursionError):
        return {"why": f"{name} cannot be read"}
    return note if isinstance(note, dict) else {"why": f"{name} is no JSON object"}


def read_lines(path: Path, after: int | None, only: str = "") -> tuple[list[str], int, bool]:
    """Whole lines, where to go on, and whether the file is shorter than it was. `only`: the lines
    of this session."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            cut = after is not None and after > size
            begin = max(size - _TAIL, 0) if after is None else 0 if cut else after
            file.seek(begin)
            raw = file.read(_TAIL)
    except OSError:
        return [], 0, False
    # What is written at this moment comes with the next look.
    whole = raw[: raw.rfind(b"\n") + 1] or (raw if len(raw) == _TAIL else b"")
    lines = whole.decode(errors="replace").splitlines()
    lines = _of_session(only, lines) if only else lines
    shown = lines[-LAST:] if after is None else lines
    return [redact(line) for line in shown], begin + len(whole), cut


def _of_session(id: str, lines: Iterable[str]) -> list[str]:
    """With what a line has below it, as the stack of an error."""
    own, found = False, []
    for line in lines:
        if (head := _HEAD.match(line)) is not None:
            own = head[1] == id
        if own:
            found.append(line)
    return found
