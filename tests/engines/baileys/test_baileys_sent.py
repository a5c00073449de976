"""A message goes again only to whom it was sent: an id alone asks for nothing."""

import asyncio
import os
import signal
import stat
from typing import Any

import pytest

from agent.engines.baileys.client import Client
from agent.engines.baileys.engine import COPIES
from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, Bench
from tests.engines.baileys.keepers import Spool

pytestmark = pytest.mark.slow
REGISTRATION = {"tag": "registration", "attrs": {}, "content": {"base64": "AAAAAQ=="}}


def by_number(user: str) -> str:
    return f"{user}@s.whatsapp.net"


def by_lid(user: str) -> str:
    return f"1{user}@lid"


async def ask_again(bench: Bench, id: str, **sender: str) -> None:
    """A reader says that he could not read it; returns when the session is done with that."""
    count = {"tag": "retry", "attrs": {"count": "1", "id": id, "t": "1", "v": "1"}}
    attrs = {"id": id, "type": "retry", "t": "1", **sender}
    stanza = {"tag": "receipt", "attrs": attrs, "content": [count, REGISTRATION]}
    await asyncio.to_thread(bench.whatsapp.tell, "/put", {"user": ACCOUNT, "stanza": stanza})
    await bench.until(lambda: not bench.whatsapp.device(ACCOUNT)["unconfirmed"])


def heard(bench: Bench, user: str, id: str) -> int:
    person: dict[str, Any] = bench.whatsapp.person(user)
    return sum(each["id"] == id for each in person.get("heard", []))


async def send(bench: Bench, to: str) -> str:
    id = (await bench.engine.send({"to": to, "type": "text", "text": "for you alone"}))["id"]
    await bench.until(lambda: heard(bench, PEER, id))
    return str(id)


async def test_a_contact_is_not_sent_what_another_one_was_sent(bench: Bench) -> None:
    await bench.come_paired()
    await bench.talk("hello", OTHER)
    await bench.hear("hello", PEER)
    id = await send(bench, by_lid(PEER))
    for name in (by_number, by_lid):
        await ask_again(bench, id, **{"from": name(OTHER)})
    assert heard(bench, OTHER, id) == 0
    for name in (by_number, by_lid):
        had = heard(bench, PEER, id)
        await ask_again(bench, id, **{"from": name(PEER)})
        await bench.until(lambda had=had: heard(bench, PEER, id) == had + 1)


async def test_a_contact_that_asks_after_a_kill_gets_the_message_again(bench: Bench) -> None:
    """The copies for it were in the memory of the Node that was killed."""
    bench.hearing = Spool
    await bench.come_paired()
    id = await send(bench, by_number(PEER))
    client = bench.engine._life.client
    assert isinstance(client, Client)
    os.kill(client.pid, signal.SIGKILL)
    await bench.restart()
    await bench.is_now("CONNECTED")
    had = heard(bench, PEER, id)
    await ask_again(bench, id, **{"from": by_number(OTHER)})
    await ask_again(bench, id, **{"from": by_number(PEER)})
    await bench.until(lambda: heard(bench, PEER, id) == had + 1)
    assert heard(bench, OTHER, id) == 0, "as before, only who was sent it"
    assert stat.S_IMODE((bench.folder.parent / COPIES).stat().st_mode) == 0o600
    assert not any(path.name == COPIES for path in bench.folder.rglob("*"))
