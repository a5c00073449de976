"""A copy for the fleet, taken at any moment of a running session, is a session that comes up."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.core.model import Instance, InstanceId
from agent.errors import TryLater, VaultError
from agent.fleet.coordinator import Owned
from agent.fleet.copies.arrive import place_archive
from agent.fleet.copies.change import with_changes
from agent.fleet.copies.take import LIMITS, Taken, take_copy
from agent.vault.identity import Identity, create
from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, Bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

CHANGES = 20
"""After a whole copy, before the next one."""

SALES = Identity(Instance(InstanceId("sales"), "baileys", True), paired=True, account=ACCOUNT)


@asynccontextmanager
async def copying(root: Path) -> AsyncIterator[list[bytes]]:
    """Copies of a session, one after the other, as fast as they come; the newest is the last."""
    copies: list[bytes] = []
    chain: list[Taken] = []

    async def copy() -> None:
        while True:
            if len(chain) > CHANGES:
                chain.clear()
            known = chain[-1].seen if chain else None
            try:
                taken = await asyncio.to_thread(
                    take_copy, root, SALES, exact=False, wall=time.time(), known=known
                )
                chain.append(taken)
                whole, *changes = (it.packed for it in chain)
                copies.append(with_changes(whole, changes, LIMITS) if changes else whole)
            except (VaultError, TryLater) as error:
                assert error.code in ("not_whole", "changing"), "while it pairs"

    task = asyncio.create_task(copy())
    try:
        yield copies
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled(), task.exception()


async def kill(bench: Bench) -> None:
    client = bench.engine._life.client
    assert client is not None
    os.kill(client.pid, signal.SIGKILL)
    await bench.is_now("DISCONNECTED", "client_crashed")
    await bench.stop()


async def come_up(bench: Bench, root: Path, archive: bytes) -> None:
    """On another machine, which has nothing but the copy."""
    root.mkdir()
    owned = Owned("sales", 1, "baileys", "running", "newest", {}, "", {})
    placed = await asyncio.to_thread(place_archive, root, owned, archive)
    assert placed.identity.paired
    bench.folder = root / "sales" / "session"
    await bench.start()
    await bench.is_now("CONNECTED")


async def read(bench: Bench, id: str) -> None:
    await bench.until(lambda: bench.heard.count("message", direction="in", id=id), 30)


async def say(bench: Bench, text: str, count: int = 1) -> list[str]:
    """Both write so many messages at once."""
    return await asyncio.gather(
        *(
            asyncio.to_thread(bench.whatsapp.say, peer, ACCOUNT, f"{text} {number}")
            for peer in (PEER, OTHER)
            for number in range(count)
        )
    )


async def test_the_newest_copy_comes_up_after_a_kill_at_any_moment(
    bench: Bench, tmp_path: Path
) -> None:
    """Three machines in a row, each killed while it copies."""
    create(tmp_path, SALES.instance)
    root = tmp_path
    for number in range(3):
        async with copying(root) as copies:
            if number == 0:
                await bench.pair()
            for peer in (PEER, OTHER):
                await bench.talk(f"{number}", peer)
            for id in await say(bench, f"burst {number}", 10):
                await read(bench, id)
            # In every second round messages are on their way when the machine dies.
            late = asyncio.create_task(say(bench, f"late {number}", 5 * (number % 2)))
            begun = len(copies)
            await bench.until(lambda copies=copies, begun=begun: len(copies) > begun)
            await kill(bench)
        before = [bench.whatsapp.person(peer)["retries"] for peer in (PEER, OTHER)]
        root = tmp_path / f"machine{number}"
        await come_up(bench, root, copies[-1])
        for id in await late:
            await bench.until(lambda id=id: is_read(bench, id), 30)
        for id in await say(bench, f"after {number}"):
            await read(bench, id)
        for peer in (PEER, OTHER):
            await bench.send(f"answer {number}", peer)
        after = [bench.whatsapp.person(peer)["retries"] for peer in (PEER, OTHER)]
        if number % 2 == 0:
            assert all(now - then <= 1 for then, now in zip(before, after, strict=True))
        assert not any(claim.status == "QR_REQUIRED" for claim in bench.heard.claims)


def is_read(bench: Bench, id: str) -> bool:
    """Here, or on the machine that died."""
    return bool({"delivered", "inactive"} & set(bench.whatsapp.receipts(ACCOUNT, id)))
