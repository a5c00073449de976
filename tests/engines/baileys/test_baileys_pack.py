"""A pack: several sessions in one Node, each ended and hurt on its own."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import Claim
from agent.engines.baileys import pack
from agent.engines.baileys.creds import CREDS
from agent.engines.baileys.pack import SharedNode
from agent.engines.surroundings import cache_folder
from agent.errors import EngineError
from scripts.benches.processes import tree
from tests.engines.baileys.conftest import NAME, PEER, Bench, PackProcess
from tests.engines.baileys.keepers import Spool, spool_of
from tests.standin.baileys.run import WhatsApp
from tests.waiting import Pauses

ACCOUNTS = ("5511900000001", "5511900000021", "5511900000031")


@pytest.fixture
async def node(cache: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SharedNode]:
    monkeypatch.setenv("WA_CACHE_PATH", str(cache))
    shared = SharedNode(NAME)
    watch = asyncio.create_task(shared.watch(lambda: None))
    yield shared
    watch.cancel()
    await shared.close()


@pytest.fixture
async def sessions(
    node: SharedNode,
    whatsapp: WhatsApp,
    tmp_path: Path,
) -> AsyncIterator[list[Bench]]:
    """Three paired sessions of the pack."""
    found = []
    for number, account in enumerate(ACCOUNTS):
        folder = tmp_path / f"i{number}" / "session"
        folder.mkdir(parents=True)
        found.append(Bench(whatsapp, folder, account))
        found[-1].opens = node.open_engine
    await asyncio.gather(*(each.pair() for each in found))
    yield found
    await asyncio.gather(*(each.stop() for each in found))


async def test_sessions_share_a_node_and_none_is_hurt_by_another(
    node: SharedNode, sessions: list[Bench]
) -> None:
    first, second, third = sessions
    assert [pid for pid in tree(os.getpid()) if "main.mjs" in _words(pid)] == [node.pid]
    for bench in sessions:
        await bench.talk("in a pack")
        answer = await bench.engine.probe(deep=True)
        assert answer.detail["pid"] == node.pid

    await third.engine.presence({"chat": PEER, "state": "typing", "seconds": 0})
    third_types = {"from": third.account, "chat": third.account, "state": "composing"}
    await third.until(lambda: third_types in third.whatsapp.screen(PEER)["presences"])
    await third.engine.mark_read({"chat": PEER, "message_ids": ["none"], "sender": ""})

    # A stop, a start and a logout of one leave the others' connections alone.
    await first.stop()
    await first.start(media_url=first.whatsapp.files()["url"])
    await first.is_now("CONNECTED")
    await first.talk("again")
    await _load_a_file(first)
    await second.engine.logout()
    await second.is_now("DISCONNECTED", "logout")
    assert third.whatsapp.device(third.account)["logins"] == 1
    assert third.heard.last.status == "CONNECTED"

    # A damaged store ends its own session only, and stays as it is.
    await first.stop()
    whole = (first.folder / CREDS).read_bytes()
    (first.folder / CREDS).write_bytes(b"{")
    await first.start()
    await first.is_now("AUTH_FAILURE", "session_damaged")
    assert (first.folder / CREDS).read_bytes() == b"{"
    (first.folder / CREDS).write_bytes(whole)
    await first.engine.connect()
    await first.is_now("CONNECTED")
    await third.talk("all the while")
    assert third.whatsapp.device(third.account)["logins"] == 1


async def test_every_session_names_the_pack_whose_node_ended_and_comes_back(
    node: SharedNode, sessions: list[Bench], caplog: pytest.LogCaptureFixture
) -> None:
    os.kill(node.pid, signal.SIGKILL)
    words = f"Node of pack {NAME}, which 3 sessions share, ended: it was ended by SIGKILL"
    for bench in sessions:
        await bench.is_now("DISCONNECTED", "pack_ended")
        assert bench.heard.last.raw == words
    assert words in caplog.text
    for bench in sessions:
        await bench.engine.connect()
        await bench.is_now("CONNECTED")
        await bench.talk("back")


async def test_a_node_that_hangs_is_ended_and_told(node: SharedNode, sessions: list[Bench]) -> None:
    os.kill(node.pid, signal.SIGSTOP)
    for bench in sessions:
        await bench.is_now("DISCONNECTED", "pack_ended")
        assert f"pack {NAME}, which 3 sessions share" in bench.heard.last.raw
        assert re.search(r"its loop did not answer within \d\d s", bench.heard.last.raw)
    assert node.pid == 0


async def test_what_one_session_cannot_use_ends_its_own_share(
    node: SharedNode, sessions: list[Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = sessions
    broken = first.engine._life._state
    monkeypatch.setattr(broken, "hear", lambda _event: 1 / 0)
    asked = asyncio.create_task(first.engine.probe(deep=True))
    await asyncio.to_thread(first.whatsapp.say, PEER, first.account, "what is this?")
    await first.is_now("DISCONNECTED", "pack_ended")
    assert "ZeroDivisionError" in first.heard.last.raw
    await asyncio.gather(asked, return_exceptions=True)
    await second.talk("all the while")
    assert second.whatsapp.device(second.account)["logins"] == 1
    monkeypatch.undo()
    monkeypatch.setenv("WA_CACHE_PATH", str(cache_folder()))
    await first.engine.connect()
    await first.is_now("CONNECTED")


async def test_a_folder_is_opened_again_when_node_has_let_go_of_it(
    node: SharedNode, sessions: list[Bench]
) -> None:
    first, second, _ = sessions
    client = first.engine._life.client
    assert client is not None
    os.kill(node.pid, signal.SIGSTOP)
    leaving = asyncio.create_task(client.kill("it was broken off"))
    await asyncio.sleep(0)
    leaving.cancel()
    again = asyncio.create_task(node.join(first.folder, lambda _event: None, lambda _why: None))
    other = await node.join(second.folder.parent, lambda _event: None, lambda _why: None)
    assert not again.done()
    os.kill(node.pid, signal.SIGCONT)
    share = await again
    await share.kill()
    await other.kill()
    await second.talk("all the while")


async def test_an_abandoned_session_is_not_saved_and_leaves_nothing_in_node(
    node: SharedNode, sessions: list[Bench]
) -> None:
    first, second, _ = sessions
    await first.engine.abandon()
    await first.until(lambda: not first.whatsapp.device(first.account)["connected"])
    await second.talk("all the while")
    await first.restart()
    await first.talk("back")


async def test_a_spool_that_stands_still_holds_no_other_members_messages(
    node: SharedNode, sessions: list[Bench], pauses: Pauses
) -> None:
    """One contact writes to all of them: its queue of keys is one for each session."""
    still, second, third = sessions
    for bench in sessions:
        await bench.stop()
        bench.hearing = Spool
        await bench.start()
        await bench.is_now("CONNECTED")
        await bench.talk("hello")
        await bench.until(lambda bench=bench: not _unconfirmed(bench))
    spool_of(still).goes_on.clear()
    await asyncio.to_thread(still.whatsapp.say, PEER, still.account, "into the ice")
    begun = time.monotonic()
    for bench in (second, third):
        await bench.talk("all the while")
        assert "all the while!" in spool_of(bench).texts()
    assert time.monotonic() - begun < 15.0 + pauses.total
    # The wait for it ends, too, and WhatsApp still has the message.
    await still.is_now("DISCONNECTED", "storage_failed")
    assert "did not keep them within 20 s" in still.heard.last.raw
    assert _unconfirmed(still) == 1
    spool_of(still).goes_on.set()
    await still.engine.connect()
    await still.is_now("CONNECTED")
    await still.until(lambda: not _unconfirmed(still))
    assert "into the ice" in spool_of(still).texts()


@pytest.mark.timeout(280)
async def test_kills_of_a_packs_node_lose_no_members_messages(
    node: SharedNode, sessions: list[Bench]
) -> None:
    """Each record goes to its own member's worker, once."""
    kept: list[dict[str, Any]] = [{} for _ in sessions]
    for bench, mine in zip(sessions, kept, strict=True):
        await bench.stop()
        bench.hearing = partial(Spool, mine)
        await bench.start()
        await bench.is_now("CONNECTED")
        await bench.hear("hello")
    said = {bench.account: ["hello"] for bench in sessions}
    for turn in range(3):
        for number in range(8):
            for bench in sessions:
                text = f"{turn} {number} to {bench.account}"
                await asyncio.to_thread(bench.whatsapp.say, PEER, bench.account, text)
                said[bench.account].append(text)
        os.kill(node.pid, signal.SIGKILL)
        for bench in sessions:
            await bench.until(lambda bench=bench: bench.heard.last.status == "DISCONNECTED")
            await bench.engine.connect()
            await bench.is_now("CONNECTED")
    for bench, mine in zip(sessions, kept, strict=True):
        await bench.until(lambda bench=bench: not _unconfirmed(bench))
        texts = [record["text"] for record in mine.values() if record["kind"] == "message"]
        assert sorted(texts) == sorted(said[bench.account])


async def test_lost_pre_keys_are_renewed_in_a_pack_too(
    node: SharedNode, sessions: list[Bench]
) -> None:
    first, *_ = sessions
    held = first.whatsapp.device(first.account)["pre_keys"]
    client = first.engine._life.client
    assert client is not None
    await client.call("upload_pre_keys", 30.0)
    await first.until(lambda: first.whatsapp.device(first.account)["pre_keys"] == held + 30)


async def test_a_session_that_started_the_node_of_its_pack_leaves_it_to_the_others(
    pack: PackProcess, whatsapp: WhatsApp, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WA_CACHE_PATH", str(cache))
    claims: dict[str, list[Claim]] = {}
    for id, account in zip(("first", "second"), ACCOUNTS, strict=False):
        folder = pack.root / id / "session"
        folder.mkdir(parents=True)
        bench = Bench(whatsapp, folder, account)
        await bench.pair()
        await bench.stop()
        about = {"version": 1, "id": id, "engine": "baileys", "enabled": True, "paired": True}
        about["settings"] = {"url": whatsapp.socket}
        (folder.parent / "instance.json").write_text(json.dumps(about))
        assert await pack.hold(id) == "active"
        heard = claims[id] = []
        link = pack.folder / "members" / id / "link.sock"
        await pack.reach(link, id, lambda _id, _run, claim, heard=heard: heard.append(claim))
        await bench.until(lambda heard=heard: heard and heard[-1].status == "CONNECTED")
    node, before = pack.node, int(whatsapp.device(ACCOUNTS[1])["logins"])
    await pack.link.call("release", {"id": "first"})
    await bench.until(lambda: not whatsapp.device(ACCOUNTS[0])["connected"])
    said = await asyncio.to_thread(whatsapp.say, PEER, ACCOUNTS[1], "are you there?")
    await bench.until(
        lambda: any(r["id"] == said for r in whatsapp.device(ACCOUNTS[1])["receipts"])
    )
    assert (pack.node, int(whatsapp.device(ACCOUNTS[1])["logins"])) == (node, before)
    assert claims["second"][-1].status == "CONNECTED"


def _unconfirmed(bench: Bench) -> int:
    return int(bench.whatsapp.device(bench.account)["unconfirmed"])


async def _load_a_file(bench: Bench) -> None:
    said = bench.whatsapp.say_file(PEER, bench.account, "image", bytes=500_000, how="gone")
    part = said["part"]
    keys = {"key": part["mediaKey"], "path": part["directPath"], "sealed": part["fileEncSha256"]}
    about = {"chat": f"{PEER}@s.whatsapp.net", "message_id": said["id"], "from_me": False}
    record = {"type": "image", **about, "media": {"size": 500_000}, "_media": keys}
    digest = sha256()
    async for piece in bench.engine.load_media(record):
        digest.update(piece)
    assert digest.hexdigest() == said["sha256"]


def _words(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def test_a_packs_node_sends_a_few_messages_at_a_time_and_all_get_through(
    node: SharedNode, sessions: list[Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = most = 0
    client = node._client
    assert client is not None
    real = client.call

    async def call(do: str, within: float, **more: Any) -> Any:
        nonlocal under_way, most
        under_way += do == "send"
        most = max(most, under_way)
        try:
            return await real(do, within, **more)
        finally:
            under_way -= do == "send"

    monkeypatch.setattr(client, "call", call)
    told = [{"to": PEER, "type": "text", "text": f"message {number}"} for number in range(8)]
    sent = await asyncio.gather(
        *(each.engine.send(message) for each in sessions for message in told)
    )
    assert {one["outcome"] for one in sent} == {"sent"}
    assert most == pack.SENDS, "24 were asked for at once"


async def test_a_message_that_gets_no_turn_in_a_packs_node_is_not_sent(
    node: SharedNode, sessions: list[Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "TURN_WITHIN", 0.2)
    message = {"to": PEER, "type": "text", "text": "later"}
    async with AsyncExitStack() as others:
        for _ in range(pack.SENDS):
            await others.enter_async_context(node.turn_to_send())
        with pytest.raises(EngineError, match="sends messages of other sessions") as refused:
            await sessions[0].engine.send(message)
        assert refused.value.code == "busy", "its messages wait, and this one is no unknown outcome"
    assert (await sessions[0].engine.send(message))["outcome"] == "sent"
