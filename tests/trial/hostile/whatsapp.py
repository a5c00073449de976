"""WhatsApp → a Baileys session: close codes, stalls, garbage, half frames, strange stanzas,
questions without an answer or refused with words that no log may repeat, at each moment of a
connection; and scans while the disk is full. Whatever it sends, Node lives, the agent can read each
claim, the pairing stays, and the next quiet connection is there and talks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import UNPAIRING
from agent.engines.catalog import file_rules
from agent.errors import WaError
from agent.link.client import read_workers
from agent.link.wire import encode
from tests.engines.baileys.conftest import ACCOUNT, Bench, make_cache
from tests.lacking import lacks
from tests.link.test_wire import told
from tests.standin.baileys.run import WhatsApp, call, why_not
from tests.trial.hostile.connecting import acts
from tests.trial.hostile.connecting.acts import NUMBER, TOKEN, Step
from tests.trial.hostile.connecting.scanning import scan

CASES = 1
FOLLOWS = 0.7
"""Seconds in which the session shows what it makes of it; nothing is wrong where it shows less."""
IDENTITY = ("noiseKey", "signedIdentityKey", "registrationId", "advSecretKey", "account")
"""Fields of a linked device's credentials that never change."""
draw = acts.draw


@dataclass(slots=True)
class World:
    folder: Path
    whatsapp: WhatsApp
    session: Bench
    count: int = 0
    scans: int = 0


@asynccontextmanager
async def paired(folder: Path) -> AsyncIterator[Bench]:
    """A connected session, and its server."""
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
            yield bench
        finally:
            await bench.stop()
            whatsapp.end()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with paired(folder) as session:
        yield World(folder, session.whatsapp, session)


async def play(world: World, case: list[Step]) -> None:
    session = world.session
    device, begun = _device(session.folder), len(session.heard.claims)
    for step in case:
        if step["stage"] == "scan":
            world.scans += 1
            folder = world.folder / "scans" / f"55117{world.scans:08}"
            await scan(world.whatsapp, folder, step)
        elif step["stage"] == "queries":
            await _go_unanswered(world, step)
        else:
            await _suffer(world, step)
    await asyncio.to_thread(world.whatsapp.tell, "/ambush", {"stage": ""})
    await session.engine.disconnect()
    await session.engine.connect()
    await session.is_now("CONNECTED")
    world.count += 1
    await session.talk(f"message {world.count}")
    assert _device(session.folder) == device, "the pairing is another"
    file_rules("baileys").check_login(session.folder, ACCOUNT)  # as before each login
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


async def _go_unanswered(world: World, step: Step) -> None:
    """A login that WhatsApp took counts as taken, whatever it answers then."""
    session, whatsapp = world.session, world.whatsapp
    told = {"xmlns": step["xmlns"], "refusal": step["refusal"]}
    if step["login"]:
        await session.engine.disconnect()
    await asyncio.to_thread(whatsapp.trouble, ACCOUNT, "queries", **told)
    begun = whatsapp.device(ACCOUNT)["logins"]
    await session.engine.connect()
    await session.until(lambda: whatsapp.device(ACCOUNT)["logins"] > begun or not step["login"])
    await session.until(lambda: session.heard.last.phase != "login")
    with suppress(TimeoutError):
        try:
            await asyncio.wait_for(_ask_all(session), FOLLOWS)
        except WaError as error:
            assert NUMBER not in str(error), error
            assert TOKEN not in str(error), error
    await asyncio.to_thread(whatsapp.trouble, ACCOUNT, "none")
    await session.engine.disconnect()


async def _ask_all(session: Bench) -> None:
    await session.engine.send({"to": NUMBER, "type": "text", "text": "is it there?"})
    await session.engine.probe(deep=True)


def _device(folder: Path) -> dict[str, Any]:
    held = json.loads((folder / "creds.json").read_text())
    return {"id": held["me"]["id"], **{name: held.get(name) for name in IDENTITY}}


def _check_heard(session: Bench, begun: int) -> None:
    assert not session.heard.count("error", code="client_ended"), "Node ended"
    assert not session.heard.errors
    for claim in session.heard.claims[begun:]:
        assert claim.status != "QR_REQUIRED", "a paired session showed a code"
        read_workers(encode(told(claim))[:-1])
        assert claim.until_wall is None or time.gmtime(claim.until_wall)
        assert NUMBER not in (said := repr(claim)), said
        assert TOKEN not in said, said
    for happening in session.heard.happenings:
        read_workers(encode(told(happening))[:-1])
    session.heard.happenings.clear()
