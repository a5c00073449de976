"""Replace a session on an Evolution server: back up its row and settings, delete it, create it.

That ends its pairing, and the server deletes its messages and contacts. Token, settings, webhook
and proxy are given back, also after the agent or the server died in between. One folder for each
session: a backup for each deletion, the same as `removal.json` from the deletion until all is given
back, and `made` if the agent made it on the server. Backups have the session's token: mode 0600.
"""

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.backends.evolution_calls import EvolutionCalls, Live
from agent.backends.evolution_session import EvolutionSession
from agent.backends.http import ServerDown, cannot, read_json, segment
from agent.engines.settings import inside
from agent.engines.tasks import in_thread
from agent.errors import EngineError
from agent.files import make_folder, write_whole

log = logging.getLogger(__name__)

SETTINGS = (
    *("rejectCall", "msgCall", "groupsIgnore", "alwaysOnline", "readMessages", "readStatus"),
    "syncFullHistory",
)
LOGOUT_WAIT = 5.0
"""Seconds that a logout may take after the server answered it."""
REMOVAL_WAIT = 45.0
LOOK_EVERY = 0.3


@dataclass(frozen=True, slots=True)
class Renewal:
    """The deletion and creation of one session."""

    session: EvolutionSession
    calls: EvolutionCalls
    folder: Path

    async def load(self) -> None:
        """Read what an earlier agent noted of this session."""
        self.session.owed = bool(await in_thread(self._read))
        self.session.made = await in_thread((self.folder / "made").exists)

    async def take_away(self, heard: Live | None) -> None:
        """Delete the session after a backup. `heard`: the state by which that was decided."""
        name = self.session.name
        live = await self.calls.state(name)
        if live is Live.MISSING:
            return
        if not self.session.owed:  # else a first backup has what may be half deleted by now
            backup = await self._back_up(rehearse=live is not Live.UNLOADED)
        elif await self._becomes(Live.MISSING, LOGOUT_WAIT):
            return
        else:
            backup = await in_thread(self._read)
        await self._remove(heard, backup)

    async def delete(self) -> None:
        """Delete for good; the backup stays for a person."""
        if await self.calls.state(self.session.name) is not Live.MISSING:
            await self._back_up(rehearse=False)
            await self._remove(None, {})
        await in_thread(self._write, {"removal.json": None, "made": None})
        self.session.owed = self.session.made = False

    async def log_out(self, heard: Live | None) -> None:
        """End its pairing, and leave it on the server with all that it has there."""
        name = self.session.name
        live = await self.calls.state(name)
        self._refuse_kept(live, heard)
        if live not in (Live.OPEN, Live.CONNECTING):
            return
        await self.calls.logout(name)
        # The answer comes first, and says success also where the server does nothing: a paired
        # session that is not connected cannot tell WhatsApp about it, and stays as it is.
        if not await self._becomes(Live.CLOSE, LOGOUT_WAIT):
            cause = f"it has not closed after {LOGOUT_WAIT:g} s"
            raise cannot(f"log {name} out", cause, "no_effect")

    async def create(self) -> None:
        """Create it with what an unfinished renewal backed up, else with nothing set."""
        row = (await in_thread(self._read)).get("row")
        await in_thread(self._write, {"made": b""})
        self.session.made = True
        await self.calls.create(self.session.name, _creation(row, self.calls.old))

    async def give_back(self) -> None:
        """Set what an unfinished renewal backed up and `create` cannot set."""
        if not (session := await in_thread(self._read)):
            return
        for what, body in self._settable(session).items():
            try:
                await self.calls.set(what, self.session.name, body)
            except ServerDown:
                raise
            except EngineError as error:
                # It is there and can be scanned; deleting it once more changes nothing.
                log.warning("%s: the backup stays in %s", error, self.folder)
        await in_thread(self._write, {"removal.json": None})
        self.session.owed = False

    async def _back_up(self, *, rehearse: bool) -> dict[str, Any]:
        """`rehearse`: set the present values again, for the server would refuse the same after the
        deletion, and wait until it can create sessions at all."""
        name = self.session.name
        session = {"remote": name, "row": await self.calls.raw_row(name)}
        session |= {what: await self.calls.find(what, name) for what in ("settings", "webhook")}
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        backup = f"{stamp}-{time.time_ns() % 10**9:09}.json"
        await in_thread(self._write, {backup: json.dumps(session).encode()})
        if await in_thread(self._read, backup) != session:
            raise cannot(f"back up {name}", "it reads differently", "backup_failed")
        if rehearse:
            if self.calls.old:
                await self.calls.rows()
            for what, body in self._settable(session).items():
                await self.calls.set(what, name, body)
        return session

    async def _remove(self, heard: Live | None, backup: Mapping[str, Any]) -> None:
        """`backup`: of a session that is created again."""
        calls, name = self.calls, self.session.name
        live = await calls.state(name)
        self._refuse_kept(live, heard)
        if live is Live.OPEN or (live is Live.CONNECTING and calls.old):
            await calls.logout(name)
            if not await self._becomes(Live.CLOSE, LOGOUT_WAIT) and live is Live.CONNECTING:
                # Measured on 1.8.6: the connection of what is deleted now goes on, reads the keys
                # of the next session of that name, and both replace each other without an end.
                cause = "WhatsApp does not answer its connection, which Evolution API 1.8 would"
                cause += " keep beside the new session's; try again later, or restart the server"
                raise cannot(f"remove {name} now", cause, "no_effect")
        if backup:
            await in_thread(self._write, {"removal.json": json.dumps(backup).encode()})
            self.session.owed = True
        await calls.delete(name)
        if not await self._becomes(Live.MISSING, REMOVAL_WAIT):
            raise cannot(f"delete {name}", f"it is there after {REMOVAL_WAIT:g} s", "timeout")

    def _refuse_kept(self, live: Live, heard: Live | None) -> None:
        back = live is Live.OPEN and heard not in (None, Live.OPEN)
        if live is not Live.MISSING and (back or heard is Live.MISSING):
            cause = f"its server has it again, and says {live}; the pairing is kept. To end it"
            cause += " all the same, ask again"
            raise cannot(f"renew {self.session.name}", cause, "pairing_kept")

    async def _becomes(self, wanted: Live, within: float) -> bool:
        """True once it is so at two looks: between two tries it says `close` for a moment."""
        deadline, seen = time.monotonic() + within, 0
        while seen < 2:
            live = await self.calls.state(self.session.name)
            seen = seen + 1 if live is wanted else 0
            if live is Live.MISSING or time.monotonic() > deadline:
                return live is Live.MISSING or seen > 1
            await asyncio.sleep(LOOK_EVERY)
        return True

    def _settable(self, session: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The bodies that set its settings and its webhook, by the route's name."""
        bodies, old = {}, self.calls.old
        if isinstance(raw := session.get("settings"), Mapping):
            bodies["settings"] = _settings(inside(raw, "settings") or raw, old)
        if webhook := _webhook(session.get("webhook"), old):
            bodies["webhook"] = webhook
        return bodies

    # files

    def _write(self, files: Mapping[str, bytes | None]) -> None:
        """None removes a file. EngineError if a file cannot be written: delete nothing then."""
        try:
            make_folder(self.folder)
            for name, content in files.items():
                if content is not None:
                    write_whole(self.folder / name, content)
                else:
                    (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise cannot(f"write {self.folder}", f"{error.strerror}", "backup_failed") from error

    def _read(self, name: str = "removal.json") -> dict[str, Any]:
        return read_json(self.folder / name)


def folder_name(name: str) -> str:
    quoted = segment(name)
    if len(quoted) <= 120:
        return quoted
    return f"{quoted[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _creation(row: Any, old: bool) -> dict[str, str]:
    """Token, number and proxy: only `create` can set them."""
    if old:
        fields = {"token": inside(row, "instance", "apikey")}
    else:
        fields = {"token": inside(row, "token"), "number": inside(row, "number")}
        if inside(row, "Proxy", "enabled") is True:
            for key in ("host", "port", "protocol", "username", "password"):
                fields[f"proxy{key.capitalize()}"] = row["Proxy"].get(key)
    return {key: value for key, value in fields.items() if isinstance(value, str) and value}


def _settings(raw: Any, old: bool) -> dict[str, Any]:
    """All settings by the server's own names, for the route that sets all at once."""
    names = [re.sub("([A-Z])", r"_\1", it).lower() for it in SETTINGS] if old else SETTINGS
    body = {name: inside(raw, name) for name in names}
    for name in [name for name, value in body.items() if value is None]:
        body[name] = "" if name.startswith("msg") else False
    token = inside(raw, "wavoipToken")
    if old or token:
        # 1.8.6 refuses a change without it, and takes an empty one.
        body["wavoipToken"] = token if isinstance(token, str) else ""
    return body


def _webhook(raw: Any, old: bool) -> dict[str, Any]:
    url, events = inside(raw, "url"), inside(raw, "events")
    if inside(raw, "enabled") is not True or not isinstance(url, str) or not url:
        return {}
    both = {"enabled": True, "url": url, "events": events if isinstance(events, list) else []}
    if old:
        names = ("webhook_by_events", "webhook_base64")
        return both | {key: raw.get(key) is True for key in names}
    headers = raw.get("headers")
    more = {
        "headers": headers if isinstance(headers, Mapping) else {},
        "byEvents": raw.get("webhookByEvents") is True,
        "base64": raw.get("webhookBase64") is True,
    }
    return {"webhook": both | more}
