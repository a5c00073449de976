"""Replace a session on the server: back up its row and settings, delete it, create it again.

That ends its pairing, and the server deletes its messages and contacts. Token, settings, webhook
and proxy are given back, also after the agent or the server died in between.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agent.engines.evolution import backup
from agent.engines.evolution.api import SLOW, EvolutionApi
from agent.engines.evolution.claims import Live
from agent.engines.evolution.options import whole_body
from agent.engines.evolution.settings import Pace
from agent.engines.raw import inside
from agent.engines.remote.answers import ServerDown
from agent.errors import EngineError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Renewal:
    """Of the session `name`; `folder` is for its backups."""

    api: EvolutionApi
    folder: Path
    name: str
    pace: Pace
    adopted: bool = False
    """The session was on the server before the agent had it."""
    owed: bool = False
    """The agent deleted it in order to create it again, and has not done so yet."""
    made: bool = False
    """The agent itself made it on the server; else it is not to be deleted there without a person's
    word, with what others keep in it."""

    def __post_init__(self) -> None:
        self.owed = backup.owes_creation(self.folder, self.name)
        self.made = backup.was_made(self.folder, self.name)

    @property
    def is_ours(self) -> bool:
        return self.made and not self.adopted

    def may_replace(self, id: str, paired: bool, unpaired: bool) -> bool:
        """Without a person's word: never one that was on the server before. A 1.8 shows nothing
        that others put into a session, and one that hangs there comes back in no other way; that it
        has no pairing must be known of it."""
        if self.is_ours or not self.api.old:
            return self.is_ours
        if not unpaired and not paired:
            self._refuse_guess(id)
        return not self.adopted

    def refuse_creation(self, id: str) -> None:
        """An adopted session is not created, unless the agent deleted it to create it again."""
        if self.adopted and not self.owed:
            raise EngineError(
                f"cannot connect {self.name}: the server has no session of that name, and the"
                " agent, which did not make it, makes none in its place. To create it:"
                f" `wa-agent ensure-healthy {id} --yes`",
                code="remote_missing",
            )

    def _refuse_guess(self, id: str) -> NoReturn:
        raise EngineError(
            f"cannot renew {self.name}: the agent did not make it, and it may have a pairing. To"
            f" end it all the same: `wa-agent ensure-healthy {id} --yes`",
            code="pairing_kept",
        )

    async def log_out(self, id: str, came_back: Callable[[Live], bool]) -> None:
        """End its pairing and leave it on the server with all that it has there."""
        live = await self.api.state(self.name)
        self._refuse_kept(live, came_back)
        if live not in (Live.OPEN, Live.CONNECTING):
            return
        await self.api.logout(self.name)
        if not await self.is_logged_out():
            raise EngineError(
                f"cannot log {self.name} out, so it shows no new code; the agent did not make it"
                " on the server, and deletes it there only if a person says so: `wa-agent cleanup"
                f" {id} --yes`",
                code="no_effect",
            )

    async def take_away(self, came_back: Callable[[Live], bool]) -> None:
        """Delete the session, after a backup of what `create` gives back. `came_back`: whether the
        decision to end it was made in another state than this one."""
        live = await self.api.state(self.name)
        if live is Live.MISSING:
            return
        if await self._removal_goes_on():
            if await self._becomes(_is_missing, self.pace.gone_wait):
                return
        else:
            session = await self._back_up()
            if live is not Live.UNLOADED:  # without it in its process the server sets nothing
                await self._rehearse(session)
        await self._remove(came_back, again=True)

    async def delete(self) -> None:
        """Delete for good; the backup stays in our folder, for a person."""
        if await self.api.state(self.name) is Live.MISSING:
            return
        if not await self._removal_goes_on():
            await self._back_up()
        await self._remove(lambda _live: False)
        if (folder := await self._unfinished()) is not None:
            await asyncio.to_thread(backup.finish, folder)

    async def create(self) -> None:
        """Create it with what an unfinished renewal backed up, else with nothing set."""
        folder = await self._unfinished()
        session = await asyncio.to_thread(backup.read, folder) if folder is not None else {}
        await asyncio.to_thread(backup.note_made, self.folder, self.name)
        self.made = True
        await self.api.create(self.name, _creation(session.get("row"), self.api.old))
        await self.give_back()

    async def give_back(self) -> None:
        """Set what an unfinished renewal backed up and `create` cannot set."""
        folder = await self._unfinished()
        if folder is None:
            return
        session = await asyncio.to_thread(backup.read, folder)
        for what, body in _settable(session, self.api.old).items():
            try:
                await self.api.set(what, self.name, body)
            except ServerDown:
                raise
            except EngineError as error:
                # The session is there and can be scanned; deleting it once more changes nothing.
                log.warning("%s: the backup stays in %s", error, folder)
        await asyncio.to_thread(backup.finish, folder)
        self.owed = False

    async def is_logged_out(self, has_ended: Callable[[], bool] = lambda: False) -> bool:
        """Whether it says `close` twice in a row: between two tries it does so for a moment.
        `has_ended`: the webhook said so; by then it may connect again, for a new code."""
        closes = 0

        def closed(live: Live) -> bool:
            nonlocal closes
            closes = closes + 1 if live is Live.CLOSE else 0
            return closes > 1 or live is Live.MISSING or has_ended()

        return await self._becomes(closed, self.pace.gone_wait)

    async def _removal_goes_on(self) -> bool:
        """Whether the server was asked a short time ago to delete it, and may have begun: a backup
        of now may lack what the one of before has."""
        folder = await self._unfinished()
        if folder is None:
            return False
        asked = await asyncio.to_thread(backup.removal_asked, folder)
        return asked < self.pace.removal_again

    async def _unfinished(self) -> Path | None:
        return await asyncio.to_thread(backup.unfinished, self.folder, self.name)

    async def _rehearse(self, session: Mapping[str, Any]) -> None:
        """Set the present values again, for the server would refuse the same after the deletion;
        and wait until the server can create sessions at all."""
        if self.api.old:
            await self.api.rows(SLOW)
        for what, body in _settable(session, self.api.old).items():
            await self.api.set(what, self.name, body)

    async def _back_up(self) -> Mapping[str, Any]:
        session = {
            "row": await self.api.row(self.name),
            "settings": await self.api.find("settings", self.name),
            "webhook": await self.api.find("webhook", self.name),
        }
        await asyncio.to_thread(backup.write, self.folder, self.name, session)
        return session

    def _refuse_kept(self, live: Live, came_back: Callable[[Live], bool]) -> None:
        if live is not Live.MISSING and came_back(live):
            raise EngineError(
                f"cannot renew {self.name}: its server has it again, and says {live}; the pairing"
                " is kept. To end it all the same, ask again",
                code="pairing_kept",
            )

    async def _remove(self, came_back: Callable[[Live], bool], *, again: bool = False) -> None:
        """`again`: it will be created again, also after the agent was ended in between."""
        api, name = self.api, self.name
        live = await api.state(name)
        self._refuse_kept(live, came_back)
        if live is Live.OPEN or (live is Live.CONNECTING and api.old):
            await api.logout(name)
            closed = await self.is_logged_out()
            if not closed and live is Live.CONNECTING:
                # Measured on 1.8.6: the connection of what is deleted now goes on, reads the keys
                # of the next session of that name, and both replace each other without an end.
                raise EngineError(
                    f"cannot remove {name} now: WhatsApp does not answer its connection, and"
                    " Evolution API 1.8 would keep that connection beside the new session's; try"
                    " again once WhatsApp answers, or restart the server",
                    code="no_effect",
                )
        if (folder := await self._unfinished()) is not None:
            await asyncio.to_thread(backup.note_removal, folder, again=again)
            self.owed = again
        await api.delete(name)
        if not await self._becomes(_is_missing, self.pace.removal_wait):
            raise EngineError(
                f"cannot delete {name}: it is still there after {self.pace.removal_wait:g} s",
                code="timeout",
            )

    async def _becomes(self, wanted: Callable[[Live], bool], within: float) -> bool:
        deadline = time.monotonic() + within
        while not wanted(await self.api.state(self.name)):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(self.pace.look_every)
        return True


def _is_missing(live: Live) -> bool:
    return live is Live.MISSING


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


def _settable(session: Mapping[str, Any], old: bool) -> dict[str, dict[str, Any]]:
    """The bodies that set its settings and its webhook, by the route's name."""
    settings, webhook = session.get("settings"), _webhook(session.get("webhook"), old)
    bodies = {"settings": whole_body(settings, {}, old)} if isinstance(settings, Mapping) else {}
    return bodies | ({"webhook": webhook} if webhook else {})


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
