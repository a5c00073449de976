"""One session's code, page and failures.

The code to scan comes as JSON, PNG, SVG or text, or as one for the phone; it is a secret: never
stored, never logged. Why a session fails: its worker's last lines, and an engine's notes and
pictures of failed starts. A worker writes these, so they are not trusted: no link is followed,
sizes are bounded, and a picture is one only by its first bytes."""

import asyncio
import base64
import io
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from aiohttp import web

from agent.api.http.call import Answer, Call, Field, Json
from agent.core.model import ConnectionStatus, InstanceId
from agent.errors import EngineError, InvalidRequest, NotFound, NotYet, Refused, TryLater, WaError
from agent.files import open_plain
from agent.redaction import redact
from agent.supervise.calls import COMMAND_TIMEOUT
from agent.vault.folder import SESSION, Folder, open_instance

_PHONE = "the account's number with country code, 7 to 15 digits"
_DIGITS = r"[^0-9]*(?:[0-9][^0-9]*){7,15}"
PAIRING_CODE = (Field("phone", str, _PHONE, required=True, most=32, pattern=_DIGITS),)
_FAILED = {
    *("engine", "timeout", "page_error", "page_incomplete", "not_ready", "backend_down"),
    *("internal", "redis", "files", "no_effect", "backup_failed", "list_failed", "log_source"),
    *("written_back", "server_reconnected", "still_connected"),
}
"""Failures of an engine; its other codes refuse the request in this state."""
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
"""A page full of photos is a JPEG: as PNG it would be too long for the worker's answer."""


JSON, PNG, SVG, TEXT = "application/json", "image/png", "image/svg+xml", "text/plain"
FORMS = (JSON, PNG, SVG, TEXT)


def draw(text: str, form: str) -> bytes:
    import segno  # its tables are half a MiB, which an agent with paired sessions never needs

    try:
        code = segno.make(text, micro=False, error="l")
    except ValueError as error:
        raise EngineError("cannot draw the code: the engine's text does not fit") from error
    if form == TEXT:
        code.terminal(drawing := io.StringIO(), border=2, compact=True)
        return drawing.getvalue().encode()
    out = io.BytesIO()
    code.save(out, kind="svg" if form == SVG else "png", scale=8, border=4, light="#fff")
    return out.getvalue()


class NotAcceptable(WaError):
    code = "not_acceptable"
    http = 406


async def show_qr(call: Call) -> Answer:
    """The code to scan; JSON, PNG, SVG or text by Accept."""
    view = call.view
    accept = (call.request.headers.get("Accept") or "*/*").lower().split(",")
    words = (part.partition(";")[0].strip() for part in accept)
    # The header's order counts, not its weights.
    form = next((form for word in words for form in FORMS if fnmatchcase(form, word)), None)
    if form is None:
        raise NotAcceptable(
            "cannot draw the code in the accepted types: accept " + ", ".join(FORMS), field="Accept"
        )
    if view.status is ConnectionStatus.CONNECTED:
        raise Refused(f"cannot show a code: {call.id} is connected", code="connected")
    if not view.should_run:
        raise Refused(f"cannot show a code: {call.id} is disabled or stopped", code="not_running")
    qr = await call.supervisor.asking.qr(call.id)
    if qr is None:
        raise NotYet(
            f"cannot show a code: {call.id} has none at the moment ({view.verdict.sentence})",
            code="no_qr",
        )
    if form == JSON:
        return {"qr": qr.text, "expires_in": round(qr.expires_in, 3), "number": qr.number}
    # Drawing takes milliseconds of pure Python; other requests need not wait for it.
    drawn = await asyncio.to_thread(draw, qr.text, form)
    lives, charset = f"{max(qr.expires_in, 0):.3f}", "utf-8" if form == TEXT else None
    headers = {"X-Qr-Number": str(qr.number), "X-Qr-Expires-In": lives}
    return web.Response(body=drawn, content_type=form, charset=charset, headers=headers)


async def pairing_code(call: Call) -> Json:
    """A code to type on the phone instead of a scan."""
    # A server may have to end one login and begin another before it has a code.
    answer = await ask_engine(
        call,
        "pairing_code",
        call.body,
        lacking=f"cannot make a pairing code of {call.id}: its engine {call.engine} offers none",
        timeout=45.0,
    )
    return {"code": answer.get("code"), "expires_in": answer.get("expires_in")}


async def screenshot(call: Call) -> web.Response:
    """A picture of an instance's page: PNG, or JPEG if a PNG is too large."""
    answer = await ask_engine(
        call,
        "screenshot",
        {"format": "png"},
        lacking=f"cannot make a screenshot of {call.id}: its engine {call.engine} offers none",
        timeout=COMMAND_TIMEOUT,
    )
    try:
        content = base64.b64decode(str(answer.get("content", "")), validate=True)
    except ValueError:
        content = b""
    for start, kind in _PICTURES.items():
        if content.startswith(start):
            return web.Response(body=content, content_type=kind)
    raise EngineError(f"cannot show the page of {call.id}: the worker sent no picture")


async def ask_engine(
    call: Call,
    name: str,
    arguments: Mapping[str, Any],
    *,
    lacking: str = "",
    timeout: float,
    alone: bool = False,
) -> Mapping[str, Any]:
    """The engine's refusal becomes an error of the request. `lacking`: the error if the engine has
    no such command; "" = it has it, so `invalid_request` is about the arguments."""
    try:
        return await call.supervisor.asking.command(
            call.id, name, arguments, timeout=timeout, alone=alone
        )
    except (EngineError, InvalidRequest) as error:
        if error.code == "busy":
            raise TryLater(str(error), code="busy") from error
        if error.code == "invalid_request":
            if lacking:
                raise Refused(lacking, code="not_supported") from error
            raise InvalidRequest(str(error), field="body") from error
        if error.code in _FAILED or isinstance(error, InvalidRequest):
            raise
        raise Refused(str(error), code=error.code) from error


# Why it fails

LAST = 60
_TAIL = 64 << 10
_HEAD = re.compile(r"\[[^]]*\] \[[A-Z]+\] \[[A-Z]+\] \[([^]]*)\] ")
"""The beginning of a worker's line; the session's id is in it."""
LINES = (Field("after", int, "the `next` of the answer before: what came since", least=0),)
FOLDER = "diagnostics"
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_NOTE = re.compile(rf"{NAME.pattern}\.json")
MOST = 20
"""An engine keeps a few; further files are not listed."""


async def worker_lines(call: Call) -> Json:
    """The last lines of an instance's worker.

    `lines`: null where the journal has them; then `command` shows them.
    """
    path = call.supervisor.seats.log_path(call.id)
    if path is None:
        return {"lines": None, "command": f"wa-agent logs {call.id}", "next": 0, "cut": False}
    # A pack's worker writes the lines of several sessions into one file.
    only = "" if path.parent.name == call.id else call.id
    lines, next, cut = await asyncio.to_thread(read_lines, path, call.query.get("after"), only)
    return {"lines": lines, "command": f"tail -n {LAST} {path}", "next": next, "cut": cut}


async def failed_starts(call: Call) -> Json:
    """The diagnostics that an engine kept of failed starts, newest first."""
    starts = await asyncio.to_thread(list_failed_starts, call.supervisor.root, call.id)
    return {"failed_starts": starts}


async def picture(call: Call) -> web.Response:
    """The picture of a failed start."""
    name = call.request.match_info["failed"]
    content = await asyncio.to_thread(read_picture, call.supervisor.root, call.id, name)
    return web.Response(body=content, content_type="image/jpeg")


def list_failed_starts(root: Path, id: InstanceId) -> list[dict[str, Any]]:
    """Newest first, each by the time in its files' names; empty where the engine kept none."""
    found = []
    with suppress(WaError), open_instance(root, id, SESSION, FOLDER) as folder:
        names = set(folder.names())
        for name in sorted(filter(_NOTE.fullmatch, names), reverse=True)[:MOST]:
            stem, seen = name.removesuffix(".json"), _read_note(folder, name)
            found.append({"name": stem, "seen": seen, "picture": f"{stem}.jpg" in names})
    return found


def read_picture(root: Path, id: InstanceId, name: str) -> bytes:
    if NAME.fullmatch(name):
        with suppress(WaError), open_instance(root, id, SESSION, FOLDER) as folder:
            if (content := folder.content(f"{name}.jpg")).startswith(b"\xff\xd8\xff"):
                return content
    raise NotFound(f"cannot show the picture {name} of {id}: there is none")


def _read_note(folder: Folder, name: str) -> dict[str, Any]:
    try:
        content = folder.content(name)
        note = json.loads(redact(content[: 256 << 10].decode(errors="replace")))
    except (WaError, ValueError, RecursionError):
        return {"why": f"{name} cannot be read"}
    return note if isinstance(note, dict) else {"why": f"{name} is no JSON object"}


def read_lines(path: Path, after: int | None, only: str = "") -> tuple[list[str], int, bool]:
    """Whole lines, where to go on, and whether the file is shorter than it was. `only`: the lines
    of this session."""
    try:
        with open_plain(path) as file:
            size = file.seek(0, io.SEEK_END)
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
