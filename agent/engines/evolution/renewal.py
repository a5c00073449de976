"""Replace a session on the server: keep its row and settings, delete it, create it again.

That ends its pairing, and the server deletes its messages and contacts. Token, settings,
webhook and proxy are kept in our folder first and given back, also after the agent or the
server died in between.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.engines.evolution import kept
from agent.engines.evolution.api import SLOW, EvolutionApi
from agent.engines.evolution.claims import Live
from agent.engines.evolution.options import whole_body
from agent.engines.evolution.settings import Pace
from agent.engines.remote.http import ServerDown
from agent.errors import EngineError

log = logging.getLogger(__name__)


async def take_away(api: EvolutionApi, folder: Path, name: str, pace: Pace) -> None:
    """Delete the session, after keeping what `create` gives back."""
    live = await api.state(name)
    if live is Live.MISSING:
        return
    found = await _keep(api, folder, name)
    if live is not Live.UNLOADED:  # without the session in its process the server sets nothing
        await _rehearse(api, name, found)
    await _remove(api, name, pace)


async def delete(api: EvolutionApi, folder: Path, name: str, pace: Pace) -> None:
    """Delete for good; the kept row and settings stay in our folder, for a person."""
    if await api.state(name) is Live.MISSING:
        return
    await _keep(api, folder, name)
    await _remove(api, name, pace)
    if (place := await asyncio.to_thread(kept.unfinished, folder, name)) is not None:
        await asyncio.to_thread(kept.finish, place)


async def create(api: EvolutionApi, folder: Path, name: str) -> None:
    """Create it with what an unfinished renewal kept, else with nothing set."""
    place = await asyncio.to_thread(kept.unfinished, folder, name)
    there = await asyncio.to_thread(kept.read, place) if place is not None else {}
    await api.create(name, _again(there.get("row"), api.old))
    await give_back(api, folder, name)


async def give_back(api: EvolutionApi, folder: Path, name: str) -> None:
    """Set what an unfinished renewal kept and `create` cannot set."""
    place = await asyncio.to_thread(kept.unfinished, folder, name)
    if place is None:
        return
    there = await asyncio.to_thread(kept.read, place)
    for what, body in _to_give_back(there, api.old).items():
        try:
            await api.set(what, name, body)
        except ServerDown:
            raise
        except EngineError as error:
            # The session is there and can be scanned; deleting it once more changes nothing.
            log.warning("%s: their kept copy stays in %s", error, place)
    await asyncio.to_thread(kept.finish, place)


async def _rehearse(api: EvolutionApi, name: str, found: Mapping[str, Any]) -> None:
    """Set what is set already, for the server would refuse the same after the deletion; and
    wait until the server can create sessions at all."""
    if api.old:
        await api.rows(SLOW)
    for what, body in _to_give_back(found, api.old).items():
        await api.set(what, name, body)


def _to_give_back(found: Mapping[str, Any], old: bool) -> dict[str, dict[str, Any]]:
    bodies = {what: _body_of(what, found.get(what), old) for what in ("settings", "webhook")}
    return {what: body for what, body in bodies.items() if body}


async def _keep(api: EvolutionApi, folder: Path, name: str) -> Mapping[str, Any]:
    found = {
        "row": await api.row(name),
        "settings": await api.found("settings", name),
        "webhook": await api.found("webhook", name),
    }
    await asyncio.to_thread(kept.keep, folder, name, found)
    return found


async def _remove(api: EvolutionApi, name: str, pace: Pace) -> None:
    live = await api.state(name)
    if live is Live.OPEN or (live is Live.CONNECTING and api.old):
        await api.logout(name)
        closed = await is_logged_out(api, name, pace)
        if not closed and live is Live.CONNECTING:
            # Measured on 1.8.6: the connection of what is deleted now goes on, reads the keys of
            # the next session of that name, and both replace each other without an end.
            raise EngineError(
                f"cannot remove {name} now: it is paired and WhatsApp does not answer it, and a"
                " server of version 1.8 would keep its connection alive beside the next one; it"
                " comes back by itself with WhatsApp, or after a restart of the server",
                code="no_effect",
            )
    await api.delete(name)
    if not await until(api, name, pace, lambda live: live is Live.MISSING):
        raise EngineError(
            f"cannot delete {name}: it is still there after {pace.gone_wait:g} s", code="timeout"
        )


async def is_logged_out(
    api: EvolutionApi, name: str, pace: Pace, told: Callable[[], bool] = lambda: False
) -> bool:
    """Whether it says `close` twice in a row: between two tries it does so for a moment.

    `told`: the webhook said that it ended; by then it may connect again, for a new code.
    """
    looks = 0

    def closed(live: Live) -> bool:
        nonlocal looks
        looks = looks + 1 if live is Live.CLOSE else 0
        return looks > 1 or live is Live.MISSING or told()

    return await until(api, name, pace, closed)


async def until(api: EvolutionApi, name: str, pace: Pace, wanted: Callable[[Live], bool]) -> bool:
    deadline = time.monotonic() + pace.gone_wait
    while not wanted(await api.state(name)):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(pace.look_every)
    return True


def _again(row: Any, old: bool) -> dict[str, Any]:
    """Token, number and proxy: only `create` can set them."""
    if not isinstance(row, Mapping):
        return {}
    if old:
        inner = row.get("instance")
        token = inner.get("apikey") if isinstance(inner, Mapping) else None
        return {"token": token} if isinstance(token, str) and token else {}
    more = {"token": row.get("token"), "number": row.get("number")}
    proxy = row.get("Proxy")
    if isinstance(proxy, Mapping) and proxy.get("enabled") is True:
        for key in ("host", "port", "protocol", "username", "password"):
            more[f"proxy{key.capitalize()}"] = proxy.get(key)
    return {key: value for key, value in more.items() if isinstance(value, str) and value}


def _body_of(what: str, there: Any, old: bool) -> dict[str, Any]:
    if not isinstance(there, Mapping):
        return {}
    if what == "settings":
        return whole_body(there, {}, old)
    url, enabled = there.get("url"), there.get("enabled")
    if enabled is not True or not isinstance(url, str) or not url:
        return {}
    events = there.get("events") if isinstance(there.get("events"), list) else []
    both = {"enabled": True, "url": url, "events": events}
    if old:
        names = ("webhook_by_events", "webhook_base64")
        return both | {key: there.get(key) is True for key in names}
    headers = there.get("headers")
    more = {
        "headers": headers if isinstance(headers, Mapping) else {},
        "byEvents": there.get("webhookByEvents") is True,
        "base64": there.get("webhookBase64") is True,
    }
    return {"webhook": both | more}
