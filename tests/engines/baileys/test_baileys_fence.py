"""No byte of a session past its lease: its worker, its Node and a pack's, each on its own."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.clock import boot_now, wall_at_boot
from agent.core.words import Claim
from agent.core.words import ConnectionStatus as Status
from agent.errors import LeaseOver
from scripts.benches.processes import tree
from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, Bench, PackProcess
from tests.listener import Listener
from tests.standin.baileys.run import WhatsApp
from tests.waiting import Pauses
from tests.worker.conftest import Bench as Worker
from tests.worker.conftest import slept_for
from tests.worker.test_fence import STILL

MARGIN = 1.0
"""Seconds past the lease in which the last byte must be out, `fence.DISCONNECT`; and those in which
the machine itself stood still."""
ENDS = (LeaseOver.exit_status, -signal.SIGKILL)
"""How a frozen worker ends that may go on: by itself, or by the kernel where that was late."""


class Wire:
    """All that sessions send to WhatsApp passes here, and when it does."""

    def __init__(self, whatsapp: WhatsApp) -> None:
        self._to = urlsplit(whatsapp.url)
        self.last_byte = 0.0
        self.closed = 0.0
        """When a session's connection ended last."""
        self.open = 0
        self.pauses = Pauses()
        """Since the last lease."""
        self._listener = Listener(self._serve)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._listener.port}/ws/chat"

    async def start(self) -> None:
        await self._listener.open()
        self.pauses.start()

    async def stop(self) -> None:
        self.pauses.end()
        await self._listener.close()

    def in_time(self, moment: float, until: float) -> bool:
        return moment - until < MARGIN + self.pauses.longest

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        there, out = await asyncio.open_connection(self._to.hostname, self._to.port)
        back = asyncio.create_task(self._pass(there, writer, lambda: None))
        try:
            await self._pass(reader, out, self._note)
            self.open, self.closed = self.open - 1, boot_now()
        finally:
            out.transport.abort()
            writer.transport.abort()
            await asyncio.gather(back, return_exceptions=True)

    def _note(self) -> None:
        self.last_byte = boot_now()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[], None]
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                note()
                writer.write(chunk)


@pytest.fixture
async def wire(whatsapp: WhatsApp) -> AsyncIterator[Wire]:
    made = Wire(whatsapp)
    await made.start()
    yield made
    await made.stop()


class Session(Worker):
    """A paired session of a fleet in a worker of its own."""

    wire: Wire
    cache: Path

    async def run(self) -> None:
        self.identity(engine="baileys", leased=True, paired=True, settings={"url": self.wire.url})
        self.start(identity=False, env={"WA_CACHE_PATH": str(self.cache)})
        await self.linked()

    ahead = 0
    """Seconds by which its boot clock is ahead of ours."""

    async def lease(self, seconds: float) -> float:
        """Until when it holds, by our clock."""
        assert self.link is not None
        until = boot_now() + seconds
        self.wire.pauses.longest = 0.0
        await self.link.call("lease", {"until": until + self.ahead})
        return until

    async def chatter(self) -> None:
        """Messages without a pause, so that the last byte comes as late as it can."""
        assert self.link is not None
        message = {"to": PEER, "type": "text", "text": "on and on"}
        with suppress(Exception):
            while True:
                await self.link.call("send", {"message": message})

    @property
    def node(self) -> int:
        assert self.process is not None
        return next(pid for pid in tree(self.process.pid) if pid != self.process.pid)


@pytest.fixture
async def session(
    whatsapp: WhatsApp, wire: Wire, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Session]:
    monkeypatch.setenv("WA_CACHE_PATH", str(cache))
    made = Session(tmp_path)
    made.wire, made.cache = wire, cache
    made.session.mkdir()
    first = Bench(whatsapp, made.session)
    await first.lay_paired()
    yield made
    await made.clean_up()


@pytest.fixture
async def talking(session: Session) -> AsyncIterator[float]:
    """It is connected and sends without a pause; when its lease ends."""
    await session.run()
    await session.lease(60)
    await session.status(Status.CONNECTED)
    until = await session.lease(1.5)
    task = asyncio.create_task(session.chatter())
    yield until
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def logins(whatsapp: WhatsApp) -> int:
    return int(whatsapp.device(ACCOUNT)["logins"])


async def test_a_session_of_a_fleet_logs_in_with_a_lease_only(
    session: Session, whatsapp: WhatsApp
) -> None:
    before, files = (
        logins(whatsapp),
        {each: each.read_bytes() for each in session.session.iterdir()},
    )
    await session.run()
    await session.status(Status.DISCONNECTED, "no_lease")
    assert logins(whatsapp) == before and session.wire.open == 0
    assert {each: each.read_bytes() for each in session.session.iterdir()} == files
    await session.lease(30)
    await session.status(Status.CONNECTED)
    assert logins(whatsapp) == before + 1


async def ends_by_itself(session: Session) -> None:
    """Unless the machine stood still until the kernel's limit was over, too."""
    status, paused = await session.ended(), session.wire.pauses.longest > STILL
    assert status in ENDS and (status == LeaseOver.exit_status or paused)


async def test_past_its_lease_nothing_goes_out(session: Session, talking: float) -> None:
    await ends_by_itself(session)
    await session.until(lambda: session.wire.open == 0)
    print(f"last byte {session.wire.last_byte - talking:+.3f} s")
    assert session.wire.in_time(session.wire.last_byte, talking)


async def until_it_is_over(session: Session, whatsapp: WhatsApp, until: float) -> None:
    """A peer writes all the while, and Node answers: the last byte is as late as it can be."""
    wire, said = session.wire, 0
    while wire.open:
        await asyncio.to_thread(whatsapp.say, PEER, ACCOUNT, "are you there?")
        said += 1
    assert wire.closed - until > -0.05 and wire.in_time(wire.closed, until) and said > 1
    print(f"last byte {wire.last_byte - until:+.3f} s after {said} messages")
    assert wire.in_time(wire.last_byte, until)
    await session.until(lambda: not whatsapp.device(ACCOUNT)["connected"])


async def test_a_frozen_workers_node_ends_the_connection_itself(
    session: Session, talking: float, whatsapp: WhatsApp
) -> None:
    before = logins(whatsapp)
    assert session.process is not None
    os.kill(session.process.pid, signal.SIGSTOP)
    await until_it_is_over(session, whatsapp, talking)
    os.kill(session.process.pid, signal.SIGCONT)
    assert await session.ended() in ENDS
    # What WhatsApp may have been told of was being written; nothing that came later is.
    newest = max(each.stat().st_mtime for each in session.session.iterdir())
    assert session.wire.in_time(newest - wall_at_boot(), talking)
    assert logins(whatsapp) == before and session.wire.open == 0


async def test_a_frozen_workers_node_ends_a_quiet_connection_on_a_machine_that_slept(
    session: Session,
) -> None:
    session.ahead = 100_000
    session.inside = slept_for(session.ahead)
    await session.run()
    await session.lease(60)
    await session.status(Status.CONNECTED)
    until = await session.lease(1.5)
    assert session.process is not None
    os.kill(session.process.pid, signal.SIGSTOP)
    await session.until(lambda: session.wire.open == 0)
    assert session.wire.closed - until > -0.05
    assert session.wire.in_time(session.wire.closed, until)


async def test_a_frozen_nodes_worker_ends_it(session: Session, talking: float) -> None:
    os.kill(session.node, signal.SIGSTOP)
    await ends_by_itself(session)
    await session.until(lambda: session.wire.open == 0)
    assert session.wire.in_time(session.wire.closed, talking + 0.5)
    errors = session.errors()
    assert "the engine does not disconnect" in errors and "ended: disconnected" not in errors


async def test_a_node_that_stood_still_beyond_a_lease_of_which_it_did_not_hear_connects_again(
    session: Session, whatsapp: WhatsApp
) -> None:
    await session.run()
    await session.lease(60)
    await session.status(Status.CONNECTED)
    before, node = logins(whatsapp), session.node
    until = await session.lease(1.5)
    os.kill(node, signal.SIGSTOP)
    try:
        renewal = asyncio.create_task(session.lease(60))
        await session.until(lambda: boot_now() > until)
    finally:
        os.kill(node, signal.SIGCONT)
    await renewal
    await session.until(lambda: session.wire.open == 0)
    await session.lease(61)
    await session.status(Status.DISCONNECTED, "connection_lost")  # the agent connects then
    assert session.link is not None
    await session.link.call("connect", {})
    await session.status(Status.CONNECTED)
    assert logins(whatsapp) == before + 1


async def test_a_frozen_worker_and_node_say_nothing_when_they_go_on(
    session: Session, talking: float
) -> None:
    node = session.node
    assert session.process is not None
    for pid in (session.process.pid, node):
        os.kill(pid, signal.SIGSTOP)
    await session.until(lambda: boot_now() > talking + 0.3)
    frozen = session.wire.last_byte
    os.kill(node, signal.SIGCONT)  # first, and alone: the worst order
    await session.until(lambda: session.wire.open == 0)
    assert session.wire.last_byte == frozen < talking
    os.kill(session.process.pid, signal.SIGCONT)
    assert await session.ended() in ENDS


class Packed:
    """A session of a fleet and another one in the worker of a pack."""

    def __init__(self, session: Session, pack: PackProcess) -> None:
        self.session, self.pack = session, pack
        self.others: list[Claim] = []

    async def run(self) -> None:
        """Both are connected; the one of the fleet has a lease."""
        session, pack = self.session, self.pack
        session.claims.clear()
        assert await pack.hold("sales") == await pack.hold("other") == "active"
        await self.attach()
        await session.lease(60)
        await session.status(Status.CONNECTED)

    async def attach(self) -> None:
        links, session = self.pack.folder / "members", self.session
        own, other = session.claims.append, self.others.append
        session.link = await self.pack.reach(
            links / "sales" / "link.sock", "sales", lambda _id, _run, claim: own(claim)
        )
        await self.pack.reach(
            links / "other" / "link.sock", "other", lambda _id, _run, claim: other(claim)
        )
        await session.until(lambda: self.others and self.others[-1].status is Status.CONNECTED)


@pytest.fixture
async def packed(
    session: Session, pack: PackProcess, whatsapp: WhatsApp, wire: Wire
) -> AsyncIterator[Packed]:
    folder = session.root / "other" / "session"
    folder.mkdir(parents=True)
    other = Bench(whatsapp, folder, OTHER)
    await other.pair()
    await other.stop()
    about = {"version": 1, "id": "other", "engine": "baileys", "enabled": True, "paired": True}
    settings = {"settings": {"url": whatsapp.socket}}
    (folder.parent / "instance.json").write_text(json.dumps(about | settings))
    session.identity(engine="baileys", leased=True, paired=True, settings={"url": wire.url})
    yield Packed(session, pack)


async def test_past_its_lease_one_session_of_a_pack_ends_and_no_other(
    packed: Packed, pack: PackProcess, whatsapp: WhatsApp
) -> None:
    await packed.run()
    session, before = packed.session, int(whatsapp.device(OTHER)["logins"])
    until = await session.lease(1.5)
    await until_it_is_over(session, whatsapp, until)
    async with asyncio.timeout(30):
        while (member := (await pack.members())["sales"])["state"] != "failed":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert member["exit_status"] == LeaseOver.exit_status
    await session.until(lambda: boot_now() > until + 2.5)  # the kernel's limit
    assert (await pack.members())["other"]["state"] == "active"
    assert int(whatsapp.device(OTHER)["logins"]) == before
    # The session may come back into the same pack.
    await packed.run()
    assert session.wire.open == 1


async def test_a_frozen_packs_node_ends_the_connection_itself_and_the_kernel_the_pack(
    packed: Packed, pack: PackProcess, whatsapp: WhatsApp
) -> None:
    await packed.run()
    session, before = packed.session, int(whatsapp.device(OTHER)["logins"])
    until = await session.lease(1.5)
    os.kill(pack.pid, signal.SIGSTOP)
    await until_it_is_over(session, whatsapp, until)
    assert await pack.ended() == -signal.SIGKILL
    # Its host starts it again: with the other session, and with this one without a lease.
    await pack.start()
    packed.others.clear()
    session.claims.clear()
    await packed.attach()
    await session.status(Status.DISCONNECTED, "no_lease")
    assert int(whatsapp.device(OTHER)["logins"]) == before + 1
    assert session.wire.open == 0
