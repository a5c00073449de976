"""What real servers answered, kept in recorded.json: asked again of the stand-in by a test.

Record again from a real server that talks to the stand-in WhatsApp of tests/standin/baileys:
python -m tests.standin.evolution.recorded URL KEY WHATSAPP GATE > recorded-VERSION.json
GATE/silent and GATE/pass, posted to, stop and pass what goes between the server and WhatsApp.
"""

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

Ask = Callable[..., Awaitable[tuple[int, Any]]]
Scan = Callable[[str], Awaitable[None]]
Silence = Callable[[bool], Awaitable[None]]
NAME = "recorded"
FRESH = "recorded-fresh"
"""One that is made while WhatsApp is silent."""
FREE = ("id", "hash", "instanceId", "token", "apikey", "clientName", "serverUrl", "profileName")
"""What differs from server to server: only its type is compared."""
_CHANGES = re.compile(r"^(2@|data:image|https?://|\d{4}-\d\d-\d\dT|\d+@s\.whatsapp|localhost/)")


def shape(body: Any, key: str = "") -> Any:
    """A body with what differs each time put away."""
    if isinstance(body, dict):
        return {name: shape(value, name) for name, value in sorted(body.items())}
    if isinstance(body, list):
        return [shape(each) for each in body]
    if isinstance(body, str) and (key in FREE or _CHANGES.match(body)):
        return "<text>"
    return body


async def walk(ask: Ask, scan: Scan, silence: Silence, *, old: bool) -> dict[str, Any]:
    """Ask all that our engine asks, in each state of one session; {state: {call: answer}}."""
    told: dict[str, Any] = {}
    restart = f"{'PUT' if old else 'POST'} /instance/restart/{NAME}"
    create = {"instanceName": NAME, "integration": "WHATSAPP-BAILEYS", "qrcode": False}
    booleans = _settings(old)

    async def look(state: str, *calls: str | tuple[str, Any]) -> None:
        found = told.setdefault(state, {})
        for call in calls:
            line, body = (call, None) if isinstance(call, str) else call
            status, answer = await ask(line, body)
            found[line if line not in found else line + " again"] = [status, shape(answer)]

    async def until(name: str, state: str) -> None:
        for _ in range(1800):
            _, body = await ask(f"GET /instance/connectionState/{name}")
            if body["instance"].get("state") == state:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} did not become {state}")

    async def pair() -> None:
        """With a code that was not shown before."""
        before = (await ask(connect, None))[1].get("code", "") if NAME in told else ""
        code = ""
        while not code or code == before:
            code = (await ask(connect, None))[1].get("code", "")
            await asyncio.sleep(0.05)
        await look("shows a code", asked[0], connect)
        await scan(code)
        await until(NAME, "open")

    asked = (
        f"GET /instance/connectionState/{NAME}",
        f"GET /settings/find/{NAME}",
        f"GET /webhook/find/{NAME}",
    )
    listed = f"GET /instance/fetchInstances?instanceName={NAME}"
    logout = f"DELETE /instance/logout/{NAME}"
    connect = f"GET /instance/connect/{NAME}"
    await look("missing", *asked, listed, restart, logout, connect, "GET /nothing")
    await look("created", ("POST /instance/create", create), ("POST /instance/create", create))
    await look("created", *asked, restart, logout)
    await look("settings", (f"POST /settings/set/{NAME}", booleans))
    token = {**booleans, "wavoipToken": ""}
    await look("settings", (f"POST /settings/set/{NAME}", token))
    await look("settings", (f"POST /settings/set/{NAME}", {**token, "wavoipToken": None}))
    await ask(connect, None)
    await pair()
    await look("open", asked[0], connect)
    await look("logged out", logout)
    await until(NAME, "close")
    await asyncio.sleep(0.3)
    await look("logged out", *asked, logout, restart)
    await ask(connect, None)
    await look("old code", asked[0])
    await _walk_silent(ask, look, until, pair, silence, old=old)
    await look("deleted", f"DELETE /instance/delete/{NAME}")
    return told


async def _walk_silent(ask, look, until, pair, silence, *, old: bool) -> None:
    """WhatsApp answers nothing: which steps change a session, and what each of them answers."""
    method = "PUT" if old else "POST"
    create = {"instanceName": FRESH, "integration": "WHATSAPP-BAILEYS", "qrcode": False}

    def calls(name: str) -> list[str]:
        routes = ("GET /instance/connectionState", "GET /instance/connect")
        routes += (f"{method} /instance/restart", "DELETE /instance/logout")
        return [f"{route}/{name}" for route in routes]

    state, connect, restart, logout = calls(NAME)
    await pair()
    await silence(True)
    await look("silent, still open", state, connect, logout)
    await until(NAME, "close")
    await look("silent, still open", state)
    await silence(False)
    await ask(connect, None)
    await pair()
    await silence(True)
    await until(NAME, "connecting")
    await look("silent, paired", state, connect, logout)
    await asyncio.sleep(0.5)
    await look("silent, paired", state, restart)
    await until(NAME, "connecting")
    await look("silent, paired", connect)
    state, connect, restart, logout = calls(FRESH)
    await ask("POST /instance/create", create)
    await look("silent, never paired", connect, state, restart, logout)
    await until(FRESH, "close")
    await look("silent, never paired", state, connect)
    await look("silent, never paired", f"DELETE /instance/delete/{FRESH}")
    await silence(False)
    await until(NAME, "open")
    await look("silence is over", calls(NAME)[0], calls(NAME)[1])


def _settings(old: bool) -> dict[str, Any]:
    if old:
        names = ("reject_call", "groups_ignore", "always_online")
        names += ("read_messages", "read_status", "sync_full_history")
        return {"msg_call": "", **dict.fromkeys(names, False)}
    names = ("rejectCall", "groupsIgnore", "alwaysOnline")
    names += ("readMessages", "readStatus", "syncFullHistory")
    return {"msgCall": "", **dict.fromkeys(names, False)}


def asker(session: aiohttp.ClientSession, url: str, key: str) -> Ask:
    async def ask(line: str, body: Any = None) -> tuple[int, Any]:
        method, path = line.split(" ")
        headers = {"apikey": key}
        async with session.request(method, url + path, json=body, headers=headers) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if text else None

    return ask


async def _record(url: str, key: str, whatsapp: str, gate: str) -> None:
    async with aiohttp.ClientSession() as session:
        ask = asker(session, url, key)
        version = (await ask("GET /"))[1]["version"]

        async def scan(code: str) -> None:
            told = {"qr": code, "user": "5511900000001"}
            async with session.post(whatsapp + "/scan", json=told) as reply:
                assert reply.status == 200, await reply.text()

        async def silence(on: bool) -> None:
            async with session.post(f"{gate}/{'silent' if on else 'pass'}") as reply:
                assert reply.status == 200, await reply.text()

        told = await walk(ask, scan, silence, old=version.startswith("1."))
        print(json.dumps({"version": version, "told": told}, indent=1, sort_keys=True))


if __name__ == "__main__":
    asyncio.run(_record(*sys.argv[1:5]))
