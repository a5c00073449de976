"""WhatsApp → a Baileys session: close codes, stalls, garbage, half frames, strange stanzas, at each
moment of a connection. Whatever it sends, Node lives, the agent can read each claim, the pairing
stays, and the next quiet connection is there and talks."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent.core.words import UNPAIRING, InstanceId
from agent.errors import WaError
from agent.link.messages import Claimed, Happened, parse_from_worker
from agent.link.wire import decode_body, encode
from tests.engines.baileys.conftest import ACCOUNT, Bench, make_cache
from tests.lacking import lacks
from tests.standin.baileys.run import WhatsApp, call, why_not

CASES = 2
STAGES = ("upgrade", "hello", "finish", "first", "now", "now")
CODES = (400, 401, 402, 403, 405, 406, 408, 409, 411, 418, 428, 440, 463, 500, 501, 503, 515, 516)
CLOSES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999)
ODD = ("", "0", "-1", "NaN", "1e308", "9" * 400, "x" * 70_000, "\ud800", "true", "null", "0x10")
FOLLOWS = 0.7
"""Seconds in which the session shows what it makes of it; nothing is wrong where it shows less."""
Step = dict[str, Any]


@dataclass(slots=True)
class World:
    whatsapp: WhatsApp
    session: Bench
    count: int = 0


def draw(chance: Random) -> list[Step]:
    return [_step(chance) for _ in range(chance.randint(2, 6))]


def _step(chance: Random) -> Step:
    stage = chance.choice(STAGES)
    if stage == "upgrade":
        return {"stage": stage, "code": chance.choice([301, 400, 403, 404, 429, 500, 502, 503])}
    kinds = (
        "last",
        "last",
        "stanza",
        "stanza",
        "raw",
        "half",
        "sealed",
        "close",
        "drop",
        "silence",
    )
    kind = chance.choice(kinds)
    step = {"stage": stage, "kind": kind, "code": chance.choice(CLOSES), "bytes": _bytes(chance)}
    if kind == "last":
        step["stanza"] = _last_word(chance)
    elif kind == "stanza":
        step["stanza"] = _stanza(chance)
    return step


def _bytes(chance: Random) -> str:
    return base64.b64encode(chance.randbytes(chance.choice([0, 1, 3, 50, 70_000]))).decode()


def _odd(chance: Random) -> str:
    return chance.choice([*ODD, str(chance.choice(CODES)), "60", str(int(time.time()) + 3600)])


def _last_word(chance: Random) -> Step:
    code = chance.choice([str(chance.choice(CODES)), _odd(chance)])
    more = {name: _odd(chance) for name in ("expire", "code", "t") if chance.random() < 0.5}
    kind = chance.choice(["conflict", "xml-not-well-formed", "ack", "x" * 300])
    inner = {"tag": kind, "attrs": {"type": chance.choice(["replaced", _odd(chance)])}}
    return chance.choice(
        [
            {"tag": "failure", "attrs": {**more, "reason": code, "location": "x"}},
            {"tag": "stream:error", "attrs": {"code": code}, "content": [inner]},
            {"tag": "stream:error", "attrs": more, "content": [inner]},
            {"tag": "xmlstreamend", "attrs": more},
        ]
    )


def _stanza(chance: Random) -> Step:
    attrs = {"from": chance.choice(["s.whatsapp.net", _odd(chance)]), "id": _odd(chance)}
    kind = chance.choice(["devices", "account_sync", "encrypt", "server_sync", "w:gp2", "picture"])
    inner = [{"tag": _odd(chance)[:99] or "count", "attrs": {"value": _odd(chance), "t": "1"}}]
    return chance.choice(
        [
            {"tag": "notification", "attrs": {**attrs, "type": kind, "t": "1"}, "content": inner},
            {"tag": "iq", "attrs": {**attrs, "type": chance.choice(["get", "set", "result"])}},
            {"tag": "ib", "attrs": attrs, "content": [{"tag": "offline", "attrs": {"count": "x"}}]},
            {"tag": "ib", "attrs": attrs, "content": [{"tag": "downgrade_webclient", "attrs": {}}]},
            {"tag": "success", "attrs": {"t": _odd(chance), "lid": _odd(chance)}},
            {"tag": "ack", "attrs": {**attrs, "class": "message", "error": _odd(chance)}},
            {"tag": "call", "attrs": attrs, "content": inner},
            {"tag": "presence", "attrs": attrs},
            {"tag": _odd(chance)[:99] or "x", "attrs": attrs, "content": inner},
            _last_word(chance),
        ]
    )


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    if reason := why_not("baileys"):
        lacks(reason)
    session = folder / "sales" / "session"
    session.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WA_CACHE_PATH", str(make_cache(folder / "cache")))
        whatsapp = WhatsApp(folder / "whatsapp.log")
        bench = Bench(whatsapp, session)
        try:
            await bench.pair()
            yield World(whatsapp, bench)
        finally:
            await bench.stop()
            whatsapp.end()


async def play(world: World, case: list[Step]) -> None:
    session = world.session
    account, begun = _account(session.folder), len(session.heard.claims)
    for step in case:
        await _suffer(world, step)
    await asyncio.to_thread(world.whatsapp.tell, "/ambush", {"stage": ""})
    await session.engine.disconnect()
    await session.engine.connect()
    await session.is_now("CONNECTED")
    world.count += 1
    await session.talk(f"message {world.count}")
    assert _account(session.folder) == account, "the pairing is another"
    _check_heard(session, begun)
    if not any(_refuses_login(step) for step in case):
        ended = {claim.reason for claim in session.heard.claims[begun:]} & UNPAIRING
        assert not ended, f"{ended} without the refusal of a login"


async def _suffer(world: World, step: Step) -> None:
    session, whatsapp = world.session, world.whatsapp
    if step["stage"] != "now" or session.heard.last.status != "CONNECTED":
        await session.engine.disconnect()
    if step["stage"] == "now":
        await session.engine.connect()
        await session.is_now("CONNECTED")
    begun = len(session.heard.claims)
    await asyncio.to_thread(whatsapp.tell, "/ambush", {"user": ACCOUNT, **step})
    if step["stage"] != "now":
        await session.engine.connect()
        await session.until(lambda: not call(whatsapp.url + "/state")["ambush"])
    with suppress(AssertionError):
        await session.until(
            lambda: any(claim.status == "DISCONNECTED" for claim in session.heard.claims[begun:]),
            FOLLOWS,
        )
    with suppress(WaError):
        await session.engine.probe(deep=True)


def _refuses_login(step: Step) -> bool:
    return step["stage"] != "now" and step.get("stanza", {}).get("tag") == "failure"


def _account(folder: Path) -> str:
    return str(json.loads((folder / "creds.json").read_text())["me"]["id"])


def _check_heard(session: Bench, begun: int) -> None:
    assert not session.heard.count("error", code="client_ended"), "Node ended"
    assert not session.heard.errors
    id = InstanceId("sales")
    for claim in session.heard.claims[begun:]:
        assert claim.status != "QR_REQUIRED", "a paired session showed a code"
        parse_from_worker(decode_body(encode(Claimed(id, "run", claim).wire())[4:]))
        assert claim.until_wall is None or time.gmtime(claim.until_wall)
    for happening in session.heard.happenings:
        parse_from_worker(decode_body(encode(Happened(id, "run", happening).wire())[4:]))
    session.heard.happenings.clear()
