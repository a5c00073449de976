"""A pack: several sessions in one Node, each ended and hurt on its own."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.engines.baileys.pack import SharedNode
from agent.engines.baileys.rules import CREDS
from tests.engines.baileys.conftest import NAME, PEER, Bench
from tests.engines.baileys.keepers import Spool
from tests.standin.baileys.run import WhatsApp

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
    node: SharedNode, whatsapp: WhatsApp, tmp_path: Path
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


@pytest.mark.timeout(280)
async def test_sessions_share_a_node_and_neither_another_nor_a_kill_costs_a_message(
    sessions: list[Bench],
) -> None:
    first, second, third = sessions
    (pid,) = _nodes()
    for bench in sessions:
        await bench.talk("in a pack")
        assert (await bench.engine.probe(deep=True)).detail["pid"] == pid

    # A stop, a start and a logout of one leave the others' connections alone.
    await first.restart()
    await first.talk("again")
    await second.engine.logout()
    await second.is_now("DISCONNECTED", "logout")
    assert not second.heard.last.paired
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
    await first.come_back()
    await third.talk("all the while")
    assert third.whatsapp.device(third.account)["logins"] == 1

    await kill_its_node([first, third])


async def kill_its_node(sessions: list[Bench]) -> None:
    """Each record goes to its own member's worker, once."""
    kept: list[dict[str, Any]] = [{} for _ in sessions]
    for bench, mine in zip(sessions, kept, strict=True):
        await bench.stop()
        bench.hearing = partial(Spool, mine)
        await bench.come_up()
        await bench.hear("hello")
    said = {bench.account: ["hello"] for bench in sessions}
    for turn in range(2):
        for number in range(8):
            for bench in sessions:
                text = f"{turn} {number} to {bench.account}"
                await asyncio.to_thread(bench.whatsapp.say, PEER, bench.account, text)
                said[bench.account].append(text)
        os.kill(*_nodes(), signal.SIGKILL)
        for bench in sessions:
            await bench.until(lambda bench=bench: bench.heard.last.status == "DISCONNECTED")
            await bench.come_back()
    for bench, mine in zip(sessions, kept, strict=True):
        await bench.until(lambda it=bench: not it.whatsapp.device(it.account)["unconfirmed"])
        texts = [record["text"] for record in mine.values() if record["kind"] == "message"]
        assert sorted(texts) == sorted(said[bench.account])


def _nodes() -> list[int]:
    return [it.pid for it in psutil.Process().children(True) if "main.mjs" in "".join(it.cmdline())]
