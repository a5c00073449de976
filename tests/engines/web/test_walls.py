"""Walls around a session: its sandbox, its silence towards others, its memory, its neighbours."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.engines.web.session import read_note
from tests.engines.web.bench import Bench, renderers_below
from tests.lacking import not_lent
from tests.listener import listening
from tests.standin.web.stand_in import StandIn

NOBODY = 65534


@pytest.fixture
async def outside() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that notes where a browser wants to go, and lets no request through."""
    asked: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode("latin-1").strip())
        writer.close()

    async with listening(note) as port:
        yield f"http://127.0.0.1:{port}", asked


async def test_a_session_contacts_no_other_host_and_its_logout_reaches_whatsapp(
    bench: Bench, stand_in: StandIn, outside: tuple[str, list[str]]
) -> None:
    proxy, asked = outside
    device = await bench.pair(stand_in, proxy=proxy)
    await bench.until(lambda: read_note(bench.session).paired)
    message = {"to": "5511888888888", "text": "see http://x.example"}
    await bench.link.call("send", {"message": message})
    await bench.link.call("logout")
    assert not (await bench.claimed(Status.DISCONNECTED, "logout")).paired
    await bench.until(lambda: device not in stand_in.devices)
    await bench.until(lambda: not read_note(bench.session).paired)
    assert asked == []


@pytest.fixture
async def nobodys(cache: Path, browser: None, stand_in: StandIn) -> AsyncIterator[Bench]:
    """A bench whose worker runs as a user without rights."""
    if os.geteuid() != 0:
        not_lent("needs root to become another user")
    root = Path(tempfile.mkdtemp(prefix="wa-web-", dir="/tmp"))
    bench = Bench(root, cache, stand_in.url)
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (root / "notify").chmod(0o666)
    yield bench
    await bench.clean_up()
    shutil.rmtree(root, ignore_errors=True)


async def test_an_unprivileged_worker_keeps_the_browser_in_its_sandbox(
    nobodys: Bench, stand_in: StandIn
) -> None:
    bench = nobodys
    await bench.start(user=NOBODY)
    await bench.claimed(Status.QR_REQUIRED)
    stand_in.scan("5511999999999")
    await bench.claimed(Status.CONNECTED)
    renderers = renderers_below(await bench.browser())
    assert renderers
    for pid in renderers:
        assert "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
        assert Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
    await bench.kill_worker()
