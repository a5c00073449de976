"""A pack: sessions of several workers in one Node, each ended and hurt on its own."""

import asyncio
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agent.engines.baileys.creds import CREDS
from scripts.benches.processes import tree
from tests.engines.baileys.conftest import NAME, PEER, Bench, PackProcess
from tests.engines.baileys.keepers import Spool, spool_of
from tests.standin.baileys.run import WhatsApp
from tests.waiting import Pauses, alive

ACCOUNTS = ("5511900000001", "5511900000021", "5511900000031")


@pytest.fixture
async def sessions(
    pack: PackProcess,
    whatsapp: WhatsApp,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[list[Bench]]:
    """Three paired sessions of the pack."""
    monkeypatch.setenv("WA_CACHE_PATH", str(cache))
    found = []
    for number, account in enumerate(ACCOUNTS):
        folder = tmp_path / f"i{number}" / "session"
        folder.mkdir(parents=True)
        place = {"pack": NAME, "socket": str(pack.folder / "pack.sock")}
        (folder.parent / "pack.json").write_text(json.dumps(place))
        found.append(Bench(whatsapp, folder, account))
    await asyncio.gather(*(each.pair() for each in found))
    yield found
    await asyncio.gather(*(each.stop() for each in found))


async def test_sessions_share_a_node_and_none_is_hurt_by_another(
    pack: PackProcess, sessions: list[Bench]
) -> None:
    first, second, third = sessions
    assert [pid for pid in tree(os.getpid()) if "main.mjs" in _words(pid)] == [pack.node]
    for bench in sessions:
        await bench.talk("in a pack")
        answer = await bench.engine.probe(deep=True)
        assert answer.detail["pid"] == pack.node

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
    pack: PackProcess, sessions: list[Bench]
) -> None:
    os.kill(pack.node, signal.SIGKILL)
    words = f"Node of pack {NAME}, which 3 sessions share, ended: it was ended by SIGKILL"
    for bench in sessions:
        await bench.is_now("DISCONNECTED", "pack_ended")
        assert bench.heard.last.raw == words
    assert await pack.ended() == 1
    assert words in pack.log.read_text()
    await pack.start()
    for bench in sessions:
        await bench.engine.connect()
        await bench.is_now("CONNECTED")
        await bench.talk("back")


async def test_a_node_that_hangs_is_ended_and_told(
    pack: PackProcess, sessions: list[Bench]
) -> None:
    os.kill(pack.node, signal.SIGSTOP)
    for bench in sessions:
        await bench.is_now("DISCONNECTED", "pack_ended")
        assert f"pack {NAME}, which 3 sessions share" in bench.heard.last.raw
        assert re.search(r"its loop did not answer within \d\d s", bench.heard.last.raw)
    assert await pack.ended() == 1


async def test_a_killed_process_of_the_pack_takes_its_node_with_it(
    pack: PackProcess, sessions: list[Bench]
) -> None:
    node = pack.node
    os.kill(pack.pid, signal.SIGKILL)
    for bench in sessions:
        await bench.is_now("DISCONNECTED", "pack_ended")
        assert NAME in bench.heard.last.raw
    await sessions[0].until(lambda: not alive(node))
    await pack.ended()
    await pack.start()
    await sessions[0].engine.connect()
    await sessions[0].is_now("CONNECTED")


async def test_a_connection_that_is_no_worker_s_harms_no_session(
    pack: PackProcess, sessions: list[Bench], tmp_path: Path
) -> None:
    mine = os.open(tmp_path, os.O_RDONLY)
    other = str(sessions[0].folder)
    lines = [
        None,  # no folder at all
        b"no JSON",
        b"[]",
        b'{"do": "tick", "id": 1}',
        b'{"do": "forget", "id": 1, "session": "1"}',
        b'{"do": "open", "id": 1, "within": 1}',
        b'{"do": "open", "id": "x"}',
        b"x" * (3 << 20),
    ]
    for line in lines:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(pack.folder / "pack.sock"))
            stranger.settimeout(60)
            socket.send_fds(stranger, [b"\n"], [] if line is None else [mine])
            with suppress(OSError):  # it is hung up while it writes
                await asyncio.to_thread(stranger.sendall, (line or b"") + b"\n")
            left = await asyncio.to_thread(_rest, stranger)
            assert b"answer" not in left, line
    # Another session's folder, named instead of handed over, is not the one that is opened.
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(pack.folder / "pack.sock"))
        socket.send_fds(stranger, [b"\n"], [mine])
        order = {"do": "open", "id": 1, "folder": other, "paired": False, "session": "1"}
        stranger.sendall(json.dumps(order).encode() + b"\n")
        answer = await asyncio.to_thread(_until_answer, stranger)
    assert answer["ok"] == {"paired": False, "account": ""}
    os.close(mine)
    for bench in sessions:
        await bench.talk("unharmed")
        assert bench.whatsapp.device(bench.account)["logins"] == 1

    # One folder has one worker: the next is taken in when Node has let go of the first.
    mine = os.open(sessions[0].folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as second:
        second.connect(str(pack.folder / "pack.sock"))
        socket.send_fds(second, [b"\n"], [mine])
        second.settimeout(1.0)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(second.recv, 1)
        await sessions[0].stop()
        second.settimeout(60)
        assert b"ready" in await asyncio.to_thread(second.recv, 4096)
    os.close(mine)


async def test_a_worker_that_stands_still_holds_no_other_members_messages(
    pack: PackProcess, sessions: list[Bench], pauses: Pauses
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
async def test_kills_of_a_pack_lose_no_members_messages(
    pack: PackProcess, sessions: list[Bench]
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
    for turn, of in enumerate((lambda: pack.node, lambda: pack.pid, lambda: pack.node)):
        for number in range(8):
            for bench in sessions:
                text = f"{turn} {number} to {bench.account}"
                await asyncio.to_thread(bench.whatsapp.say, PEER, bench.account, text)
                said[bench.account].append(text)
        os.kill(of(), signal.SIGKILL)
        await pack.ended()
        await pack.start()
        for bench in sessions:
            await bench.until(lambda bench=bench: bench.heard.last.status == "DISCONNECTED")
            await bench.engine.connect()
            await bench.is_now("CONNECTED")
    for bench, mine in zip(sessions, kept, strict=True):
        await bench.until(lambda bench=bench: not _unconfirmed(bench))
        texts = [record["text"] for record in mine.values() if record["kind"] == "message"]
        assert sorted(texts) == sorted(said[bench.account])


async def test_lost_pre_keys_are_renewed_in_a_pack_too(
    pack: PackProcess, sessions: list[Bench]
) -> None:
    first, *_ = sessions
    held = first.whatsapp.device(first.account)["pre_keys"]
    client = first.engine._life.client
    assert client is not None
    await client.call("upload_pre_keys", 30.0)
    await first.until(lambda: first.whatsapp.device(first.account)["pre_keys"] == held + 30)


def _unconfirmed(bench: Bench) -> int:
    return int(bench.whatsapp.device(bench.account)["unconfirmed"])


def _rest(sock: socket.socket) -> bytes:
    found = b""
    with suppress(OSError):
        while part := sock.recv(65536):
            found += part
    return found


def _until_answer(sock: socket.socket) -> dict[str, Any]:
    sock.settimeout(60)
    with sock.makefile("rb") as lines:
        for line in lines:
            if "answer" in (said := json.loads(line)):
                return dict(said)
    raise AssertionError("no answer")


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
